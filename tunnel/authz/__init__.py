"""Who may pass: facts about a peer, rules over them, and the decision that everything later demands."""
