"""`python -m container_manager` is the command line."""

from container_manager.cli.main import main

main(prog_name="container-manager")
