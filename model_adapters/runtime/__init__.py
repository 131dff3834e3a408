"""The runtime of local models: a whole n-shot curve for about the price of its longest prompt."""
