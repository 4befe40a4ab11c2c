"""Mixed traffic for a long time: what must stay flat has to stay flat."""
