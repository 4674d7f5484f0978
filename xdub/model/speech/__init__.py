"""Audio encoders of the published editors: Whisper's last block with wav2vec2 (X-Dub), and HuBERT (TBDub)."""
