"""The runtime of local models: a whole n-shot curve for about the price of its longest prompt.

seam.py       what it has to know of a model: `Decoder`, and `Looking` for cross attention
running.py    `Runtime`: what an adapter answers with
laying.py     an episode as strips (strips.py) of embeddings, its images encoded once (features.py)
packed.py     all queries and labels (branches.py) behind one prefix, by cascade attention
              (attention.py), put under models of transformers (wiring.py)
ways.py       the plainer ways, which packed.py is held to (checking.py)
budget.py     how many tokens a forward may hold
"""
