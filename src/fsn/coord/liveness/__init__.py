"""Who is there: which nodes are heard, which coordinators are alive, and what share of the time a node was up."""
