"""Networks over the parameters of networks: populations, views, parameter graphs, metanetworks and what they are used for."""
