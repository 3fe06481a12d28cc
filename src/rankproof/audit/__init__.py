"""How an audit is run, checked and told."""
