from .export import export_single_file as export_single_file
from .pretrained import load_vae as load_vae
from .pretrained import register_loader as register_loader
from .pretrained import save_vae as save_vae
from .single_file import load_single_file as load_single_file
