"""`python -m mbv3ssd_deploy`."""

from mbv3ssd_deploy.cli.main import main

main()
