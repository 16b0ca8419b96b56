"""Engines that compute the inputs of the heads of a frozen network, and the choice of one."""
