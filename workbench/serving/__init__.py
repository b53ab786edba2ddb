"""The demo page and its small HTTP interface: `workbench serve`."""
