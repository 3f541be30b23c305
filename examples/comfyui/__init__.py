"""Latents that flip, turn, scale and change colour as their images do: equivae's latent ops as ComfyUI nodes.

Copy this folder into `ComfyUI/custom_nodes/`. It needs torch, numpy and safetensors, which ComfyUI brings.
"""

from .nodes import NODES

try:
    from comfy_api.latest import ComfyExtension
except ImportError:  # a ComfyUI before the third node API
    from .old_api import display_names, mappings

    NODE_CLASS_MAPPINGS = mappings(NODES)
    NODE_DISPLAY_NAME_MAPPINGS = display_names(NODES)
else:
    from .new_api import node_class

    class EquivaeExtension(ComfyExtension):
        """What ComfyUI asks for the nodes."""

        async def get_node_list(self):
            return [node_class(node) for node in NODES]

    async def comfy_entrypoint():
        """Where ComfyUI enters."""
        return EquivaeExtension()
