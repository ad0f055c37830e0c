"""`python -m tightwire_pipelines` is `tightwire`."""

from tightwire_pipelines.cli import main

main()
