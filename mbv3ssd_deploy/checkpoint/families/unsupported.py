"""Files that are recognised only to be refused by name, as data.

First other detectors of the families' code bases, then common networks. The first signature that
fits is named: MobileNetV2 comes before MobileNetV1, whose first key it has too.
"""

from __future__ import annotations

from mbv3ssd_deploy.checkpoint.families.family import Signature, Stranger

_NOT_V3 = "only MobileNetV3 backbones are supported"
_BACKBONE = "it has no detection heads: it can start a training, but there is nothing to deploy"

OTHERS = (
    Stranger(
        "pytorch-ssd's vgg16-ssd",
        Signature(
            present=("classification_headers.0.weight", "base_net.0.weight", "base_net.2.weight")
        ),
        _NOT_V3,
    ),
    Stranger(
        "pytorch-ssd's mb2-ssd-lite (MobileNetV2)",
        Signature(starts=("classification_headers.", "base_net.1.conv.")),
        _NOT_V3,
    ),
    Stranger(
        "pytorch-ssd's mb1-ssd or mb1-ssd-lite (MobileNetV1)",
        Signature(present=("base_net.0.0.weight",), starts=("classification_headers.",)),
        _NOT_V3,
    ),
    Stranger(
        "pytorch-ssd's squeezenet ssd-lite",
        Signature(present=("base_net.3.squeeze.weight",), starts=("classification_headers.",)),
        _NOT_V3,
    ),
    Stranger(
        "a pytorch-ssd detector on a backbone that is not known here",
        Signature(starts=("classification_headers.",)),
        _NOT_V3,
        is_rest=True,
    ),
    Stranger(
        "a lufficc/SSD detector on another backbone (VGG, MobileNetV2, EfficientNet)",
        Signature(starts=("box_head.predictor.",)),
        _NOT_V3,
        is_rest=True,
    ),
    Stranger(
        "torchvision's SSD on VGG16",
        Signature(
            present=("backbone.scale_weight", "head.classification_head.module_list.0.weight")
        ),
        _NOT_V3,
    ),
    Stranger(
        "a torchvision RetinaNet or FCOS",
        Signature(present=("head.classification_head.cls_logits.weight",)),
    ),
    Stranger(
        "a torchvision Faster R-CNN or Mask R-CNN",
        Signature(starts=("rpn.head.", "roi_heads.box_predictor.")),
    ),
    Stranger(
        "mmdetection's SSDLite on a backbone other than MobileNetV3",
        Signature(present=("bbox_head.cls_convs.0.0.conv.weight",), starts=("neck.extra_layers.",)),
        _NOT_V3,
        is_rest=True,
    ),
    Stranger(
        "mmdetection's SSD on VGG16",
        Signature(present=("backbone.features.0.weight", "bbox_head.cls_convs.0.0.weight")),
        _NOT_V3,
    ),
    Stranger(
        "mmdetection 1.x's SSD on VGG16",
        Signature(present=("backbone.features.0.weight", "bbox_head.cls_convs.0.weight")),
        _NOT_V3,
    ),
    Stranger(
        "an mmdetection detector of another kind",
        Signature(starts=("bbox_head.",)),
        "of mmdetection's detectors only SSDLite on MobileNetV3 is supported, and ujsyehao's SSD",
        is_rest=True,
    ),
    Stranger(
        "a classifier that train-backbone made",
        Signature(present=("backbone.features.0.0.0.weight", "classifier.3.weight")),
        f"{_BACKBONE}: train --backbone takes it",
    ),
    Stranger(
        "torchvision's MobileNetV3 classifier",
        Signature(present=("features.1.block.0.0.weight", "classifier.3.weight")),
        _BACKBONE,
    ),
    Stranger(
        "timm's MobileNetV3 classifier",
        Signature(present=("conv_stem.weight", "blocks.0.0.conv_dw.weight")),
        _BACKBONE,
    ),
    Stranger(
        "d-li14/mobilenetv3.pytorch's classifier",
        Signature(present=("features.0.0.weight", "features.1.conv.0.weight", "conv.0.weight")),
        _BACKBONE,
    ),
    Stranger(
        "xiaolai's MobileNetV3 classifier",
        Signature(present=("linear4.weight",), starts=("bneck.",)),
        _BACKBONE,
    ),
    Stranger(
        "leaderj's or tongyuhome's MobileNetV3 classifier",
        Signature(present=("init_conv.0.weight", "block.0.conv.0.weight")),
        _BACKBONE,
    ),
    Stranger(
        "jungin500's MobileNetV3 classifier",
        Signature(present=("features.3.bottleneck_0_0.weight",)),
        _BACKBONE,
    ),
    Stranger(
        "torchvision's MobileNetV2 classifier",
        Signature(present=("features.1.conv.0.0.weight", "classifier.1.weight")),
        _NOT_V3,
    ),
    Stranger(
        "a torchvision ResNet classifier",
        Signature(present=("conv1.weight", "layer1.0.conv1.weight", "fc.weight")),
        _NOT_V3,
    ),
    Stranger(
        "a torchvision VGG classifier",
        Signature(present=("features.0.weight", "classifier.0.weight")),
        _NOT_V3,
    ),
    Stranger(
        "an Ultralytics YOLO detector",
        Signature(present=("0.conv.weight", "1.conv.weight")),  # behind the prefix `model.`
    ),
    Stranger(
        "a vision transformer",
        Signature(present=("class_token",), starts=("encoder.layers.",)),
    ),
    Stranger("a DETR detector", Signature(present=("class_embed.weight", "query_embed.weight"))),
)
