"""The UVA network (paper section IV): inputs, masking, transformer, heads, losses and sampling."""
