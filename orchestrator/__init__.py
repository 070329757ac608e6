"""Recursive Language Models over untrusted contexts, in sealed containers."""
