"""The scripts are no modules to collect: `test_scripts` runs them."""

collect_ignore_glob = ["scripts/*"]
