"""Where autoencoders come from and go to: folders, single files, the hub; safetensors only."""

from equivae.files.export import export_single_file
from equivae.files.pretrained import load_vae, register_loader, save_vae
from equivae.files.single_file import load_single_file

__all__ = ["export_single_file", "load_single_file", "load_vae", "register_loader", "save_vae"]
