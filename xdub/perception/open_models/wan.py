"""Registry entries of Wan 2.1 and Wan 2.2: transformers, autoencoders and text encoder, in both layouts.

Revisions, sizes and hashes are those that the hub publishes for these commits.
"""

from __future__ import annotations

from functools import partial

from xdub.perception.open_models import shapes
from xdub.perception.open_models.entry import Licence, ModelFile, OpenModel
from xdub.perception.open_models.hub import HubFile

APACHE = Licence(
    name="Apache-2.0 (Alibaba Wan)",
    url="https://www.apache.org/licenses/LICENSE-2.0",
    identifier="apache-2.0",
)
ORIGINAL_1_3B = ("Wan-AI/Wan2.1-T2V-1.3B", "37ec512624d61f7aa208f7ea8140a131f93afc9a")
DIFFUSERS_1_3B = ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "0fad780a534b6463e45facd96134c9f345acfa5b")
ORIGINAL_5B = ("Wan-AI/Wan2.2-TI2V-5B", "921dbaf3f1674a56f47e83fb80a34bac8a8f203e")
DIFFUSERS_5B = ("Wan-AI/Wan2.2-TI2V-5B-Diffusers", "b8fff7315c768468a5333511427288870b2e9635")


def hub_files(repo: tuple[str, str], table: str, *, folder: str = "") -> tuple[ModelFile, ...]:
    """Return the files of a repository at a commit from lines of name, size and sha256.

    Args:
        folder: folder of the repository that holds the files; it is not part of the model's folder.
    """
    rows = [line.split() for line in table.strip().splitlines()]
    return tuple(
        ModelFile(
            name=name,
            source=HubFile(repo=repo[0], revision=repo[1], file=f"{folder}{name}"),
            size=int(size),
            sha256=sha256,
        )
        for name, size, sha256 in rows
    )


def _weights(model: tuple[ModelFile, ...]) -> tuple[str, ...]:
    """Return the names of the safetensors files of a model."""
    return tuple(file.name for file in model if file.name.endswith(".safetensors"))


WAN_1_3B = hub_files(
    ORIGINAL_1_3B,
    """
    config.json 249 ab37994c43740513f94b3ba6233a784035a67b43c8cde83c8f31aa90468c67ce
    diffusion_pytorch_model.safetensors 5676070424 96b6b242ca1c2f24e9d02cd6596066fab6d310e2d7538f33ae267cb18d957e8f
    """,
)
WAN_1_3B_DIFFUSERS = hub_files(
    DIFFUSERS_1_3B,
    """
    config.json 465 0b093fa072e9ff28763febe9b964ee582f566733a6d6709deb9dfba1bde16b81
    diffusion_pytorch_model-00001-of-00002.safetensors 4998781576 6d011927dbd2cc8afe53d57abab04a8fd86f615d83324770d985fb058ece3a24
    diffusion_pytorch_model-00002-of-00002.safetensors 677289072 b92ec2309b1f239af6f746431815a881afcc938abb26a4f08d9a2fd6c892f872
    diffusion_pytorch_model.safetensors.index.json 73296 dcbcf3497134a3f50557ff069dd7d2c84b5c4d8c5932472f6bdb780fb4016589
    """,
    folder="transformer/",
)
WAN_5B = hub_files(
    ORIGINAL_5B,
    """
    config.json 251 d1fea36899d00c2501b836c13ad65af56e2f9529ba622e50886d3f5c3e6c02bc
    diffusion_pytorch_model-00001-of-00003.safetensors 9825014472 720b06c4ade5e87c1246bba8ac95b664c638749cd9b102cf84d823bb44c026a1
    diffusion_pytorch_model-00002-of-00003.safetensors 9995661736 09ec5ef720d8396f6cfa51fbdcbdb2327e37722afd6e89fd38f1e7e5e782c283
    diffusion_pytorch_model-00003-of-00003.safetensors 178558176 6306f7894c345de9093ad588771c2abfaeb668a81f7a6d9a918bd26ba3568e49
    diffusion_pytorch_model.safetensors.index.json 72865 bfa2337f1163e195d24151a72298daf34a620543898109be47e414c8daa5b3fe
    """,
)
WAN_5B_DIFFUSERS = hub_files(
    DIFFUSERS_5B,
    """
    config.json 495 dc00d9866e72cf77db6b531aaa33be4dc7148fef9338442bd0ae9181f7075e9b
    diffusion_pytorch_model-00001-of-00005.safetensors 4978254344 511bec832a201caa410d09c5ce7dbbf8ad2708c345d82038f684fc74cce982be
    diffusion_pytorch_model-00002-of-00005.safetensors 4846784976 7c42724912b1911429125dc50c0e9a49ccbada5a601b657d4ed2e15e7597c193
    diffusion_pytorch_model-00003-of-00005.safetensors 4972658392 e9c3d0c76de786566382f8258101fea973ae37681c6e9fe0e5fe1fb93b806424
    diffusion_pytorch_model-00004-of-00005.safetensors 4846785080 a331121771790939678db6f585553fd5184609f7d02593c699a4d241b0d834c5
    diffusion_pytorch_model-00005-of-00005.safetensors 354751840 78b655685c47efdb2349f36826bb101264e9f212a16325d584aeb5f53c88e719
    diffusion_pytorch_model.safetensors.index.json 73297 d6c1f72d86fbddef8fb5ef1c03f5b56b2bfdb6ae58032db98c6019fd1dae9021
    """,
    folder="transformer/",
)

WAN: tuple[OpenModel, ...] = (
    OpenModel(
        role="wan2.1-t2v-1.3b",
        purpose="base of recipe wan-1.3b: Wan 2.1 text-to-video, 1.4 B parameters, original names",
        licence=APACHE,
        files=WAN_1_3B,
        diffusers=DIFFUSERS_1_3B[0],
        signature="9269f8db9040a9d860eaca435be61814",
        signed=_weights(WAN_1_3B),
        shapes=partial(shapes.wan, 1536, 8960, 16, 30),
    ),
    OpenModel(
        role="wan2.1-t2v-1.3b-diffusers",
        purpose="the same weights with diffusers' names",
        licence=APACHE,
        files=WAN_1_3B_DIFFUSERS,
        diffusers=DIFFUSERS_1_3B[0],
        signature="b0a133b5687c7d054175e5bfa66ef5fd",
        signed=_weights(WAN_1_3B_DIFFUSERS),
        shapes=partial(shapes.diffusers_wan, 1536, 8960, 16, 30),
    ),
    OpenModel(
        role="wan2.2-ti2v-5b",
        purpose="base of recipe wan-5b: Wan 2.2 text- and image-to-video, 5.0 B parameters, original names",
        licence=APACHE,
        files=WAN_5B,
        diffusers=DIFFUSERS_5B[0],
        signature="1f5ab7703c6fc803fdded85ff040c316",
        signed=_weights(WAN_5B),
        shapes=partial(shapes.wan, 3072, 14336, 48, 30),
    ),
    OpenModel(
        role="wan2.2-ti2v-5b-diffusers",
        purpose="the same weights with diffusers' names",
        licence=APACHE,
        files=WAN_5B_DIFFUSERS,
        diffusers=DIFFUSERS_5B[0],
        signature="ae5d9e8609a122565c5604f34731e117",
        signed=_weights(WAN_5B_DIFFUSERS),
        shapes=partial(shapes.diffusers_wan, 3072, 14336, 48, 30),
    ),
    OpenModel(
        role="wan2.1-vae",
        purpose="codec.kind=wan: 16 channels, 8 px; the diffusers folder that a recipe's `weights` holds",
        licence=APACHE,
        files=hub_files(
            DIFFUSERS_1_3B,
            """
            config.json 724 f0c1cc1d7decb5badc384f54691746a27a9aeff49f7ebca974e583389342d527
            diffusion_pytorch_model.safetensors 507591892 d6e524b3fffede1787a74e81b30976dce5400c4439ba64222168e607ed19e793
            """,
            folder="vae/",
        ),
    ),
    OpenModel(
        role="wan2.1-vae-original",
        purpose="the same autoencoder with the original names",
        licence=APACHE,
        files=hub_files(
            ORIGINAL_1_3B,
            """
            Wan2.1_VAE.pth 507609880 38071ab59bd94681c686fa51d75a1968f64e470262043be31f7a094e442fd981
            """,
        ),
    ),
    OpenModel(
        role="wan2.2-vae",
        purpose="codec.kind=wan2.2: 48 channels, 16 px; the diffusers folder that a recipe's `weights` holds",
        licence=APACHE,
        files=hub_files(
            DIFFUSERS_5B,
            """
            config.json 1701 d996c340fe9a7df5d7371f76a7d8d6956f6c98256080074d8434fa5eeac11360
            diffusion_pytorch_model.safetensors 2818777808 62cd18f19438e35b32ac63020e2852f566e9b02f46b6cdbd87972a356e3c6f4b
            """,
            folder="vae/",
        ),
    ),
    OpenModel(
        role="wan2.2-vae-original",
        purpose="the same autoencoder with the original names",
        licence=APACHE,
        files=hub_files(
            ORIGINAL_5B,
            """
            Wan2.2_VAE.pth 2818839170 20eb789667fa5e60e7516bf509512f6cb61f01b0aa0695eadaea930c13892b36
            """,
        ),
    ),
    OpenModel(
        role="umt5",
        purpose="text encoder of both Wans in bf16, with its tokenizer; only `xdub weights prompt` loads it",
        licence=APACHE,
        files=hub_files(
            DIFFUSERS_5B,
            """
            config.json 855 a2bcb24699f6c009a2427432bdd483ef8b2b42a712abc9503759cdc77d171f07
            model-00001-of-00003.safetensors 4935812536 a8e861969c7433e707cc5a74065d795d36cca07ec96eb6763eb4083df7248f58
            model-00002-of-00003.safetensors 4983103192 d57d948ece4837d850b7a859a4415121d57cacf8b9ee1d4db200c67f592902d7
            model-00003-of-00003.safetensors 1442935480 0da9ee284e21d1406df708788db1d502d95d75f69faa25cd26151bf8829b7c5f
            model.safetensors.index.json 22476 31c4c7bcce679eaa0dd4667462394ddb013dc2f748e0bffc893dc9146a320dab
            """,
            folder="text_encoder/",
        )
        + hub_files(
            DIFFUSERS_5B,
            """
            special_tokens_map.json 7079 456b58fd240a06c743a7c2cf8008bec501240d68ebd1fc4018ea569505fea270
            spiece.model 4548313 e3909a67b780650b35cf529ac782ad2b6b26e6d1f849d3fbb6a872905f452458
            tokenizer.json 16837459 20a46ac256746594ed7e1e3ef733b83fbc5a6f0922aa7480eda961743de080ef
            tokenizer_config.json 61758 1d8d2a216bf8e70ac15b7ddcea566c4dd0433c024b39a58ca5e4c66bd78defbd
            """,
            folder="tokenizer/",
        ),
    ),
    OpenModel(
        role="umt5-original",
        purpose="the same text encoder with the original names, and its tokenizer",
        licence=APACHE,
        files=hub_files(
            ORIGINAL_5B,
            """
            models_t5_umt5-xxl-enc-bf16.pth 11361920418 7cace0da2b446bbbbc57d031ab6cf163a3d59b366da94e5afe36745b746fd81d
            google/umt5-xxl/special_tokens_map.json 6623 7b8a9f5040adb67b5805abdfd42c1f8d0f3d0e711f10726580eb3789cd0ad61d
            google/umt5-xxl/spiece.model 4548313 e3909a67b780650b35cf529ac782ad2b6b26e6d1f849d3fbb6a872905f452458
            google/umt5-xxl/tokenizer.json 16837417 6e197b4d3dbd71da14b4eb255f4fa91c9c1f2068b20a2de2472967ca3d22602b
            google/umt5-xxl/tokenizer_config.json 61728 ed9a3a8b0faa71a70a32847e0435fe036e6e112d4df4edb7bb48a921e344dc05
            """,
        ),
    ),
)
"""Entries of Wan."""
