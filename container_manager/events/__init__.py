"""The event log of this process, its subscribers, and the output of jobs."""
