"""Authorization: the facts about a peer, the access rules, and the decision to admit it."""
