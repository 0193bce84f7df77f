"""What a user deploys: configuration, images and users of the nodes. Run from a checkout:
`python -m deploy --help`."""
