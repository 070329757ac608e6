"""The hostile battery: attacks on a sandbox, each with the wall that should stop it.

Without it "hardened" would be a list of settings. Here every claim is tried on the very host it is
made for. Attacks are data and pure functions; `runner` fights them on sandboxes it is given.
"""
