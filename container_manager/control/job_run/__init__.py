"""The run of one claimed job: `run` drives it through `launch`, `watch` and `conclude`; `verdict` judges its end."""
