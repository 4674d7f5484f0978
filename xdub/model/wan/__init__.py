"""WanDiT: the transformer of Wan 2.1 and 2.2, of X-Dub's and of TBDub's published editors, as a backbone."""
