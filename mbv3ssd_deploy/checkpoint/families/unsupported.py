"""Files that are recognised only to be refused by name, as data.

First other detectors of the families' code bases, then common networks. The first signature that
fits is named: MobileNetV2 comes before MobileNetV1, whose first key it has too.
"""

from __future__ import annotations

from mbv3ssd_deploy.checkpoint.families.family import Signature, UnsupportedModel

_NOT_V3 = "only MobileNetV3 backbones are supported"
_BACKBONE = "it has no detection heads: it can start a training, but there is nothing to deploy"

UNSUPPORTED = (
    UnsupportedModel(
        "pytorch-ssd's vgg16-ssd",
        Signature(
            present=("classification_headers.0.weight", "base_net.0.weight", "base_net.2.weight")
        ),
        _NOT_V3,
    ),
    UnsupportedModel(
        "pytorch-ssd's mb2-ssd-lite (MobileNetV2)",
        Signature(starts=("classification_headers.", "base_net.1.conv.")),
        _NOT_V3,
    ),
    UnsupportedModel(
        "pytorch-ssd's mb1-ssd or mb1-ssd-lite (MobileNetV1)",
        Signature(present=("base_net.0.0.weight",), starts=("classification_headers.",)),
        _NOT_V3,
    ),
    UnsupportedModel(
        "pytorch-ssd's squeezenet ssd-lite",
        Signature(present=("base_net.3.squeeze.weight",), starts=("classification_headers.",)),
        _NOT_V3,
    ),
    UnsupportedModel(
        "a pytorch-ssd detector on a backbone that is not known here",
        Signature(starts=("classification_headers.",)),
        _NOT_V3,
        is_rest=True,
    ),
    UnsupportedModel(
        "a lufficc/SSD detector on another backbone (VGG, MobileNetV2, EfficientNet)",
        Signature(starts=("box_head.predictor.",)),
        _NOT_V3,
        is_rest=True,
    ),
    UnsupportedModel(
        "torchvision's SSD on VGG16",
        Signature(
            present=("backbone.scale_weight", "head.classification_head.module_list.0.weight")
        ),
        _NOT_V3,
    ),
    UnsupportedModel(
        "a torchvision RetinaNet or FCOS",
        Signature(present=("head.classification_head.cls_logits.weight",)),
    ),
    UnsupportedModel(
        "a torchvision Faster R-CNN or Mask R-CNN",
        Signature(starts=("rpn.head.", "roi_heads.box_predictor.")),
    ),
    UnsupportedModel(
        "mmdetection's SSDLite on a backbone other than MobileNetV3",
        Signature(present=("bbox_head.cls_convs.0.0.conv.weight",), starts=("neck.extra_layers.",)),
        _NOT_V3,
        is_rest=True,
    ),
    UnsupportedModel(
        "mmdetection's SSD on VGG16",
        Signature(present=("backbone.features.0.weight", "bbox_head.cls_convs.0.0.weight")),
        _NOT_V3,
    ),
    UnsupportedModel(
        "mmdetection 1.x's SSD on VGG16",
        Signature(present=("backbone.features.0.weight", "bbox_head.cls_convs.0.weight")),
        _NOT_V3,
    ),
    UnsupportedModel(
        "an mmdetection detector of another kind",
        Signature(starts=("bbox_head.",)),
        "of mmdetection's detectors only SSDLite on MobileNetV3 is supported, and ujsyehao's SSD",
        is_rest=True,
    ),
    UnsupportedModel(
        "a classifier that train-backbone made",
        Signature(present=("backbone.features.0.0.0.weight", "classifier.3.weight")),
        f"{_BACKBONE}: train --backbone takes it",
    ),
    UnsupportedModel(
        "torchvision's MobileNetV3 classifier",
        Signature(present=("features.1.block.0.0.weight", "classifier.3.weight")),
        _BACKBONE,
    ),
    UnsupportedModel(
        "timm's MobileNetV3 classifier",
        Signature(present=("conv_stem.weight", "blocks.0.0.conv_dw.weight")),
        _BACKBONE,
    ),
    UnsupportedModel(
        "d-li14/mobilenetv3.pytorch's classifier",
        Signature(present=("features.0.0.weight", "features.1.conv.0.weight", "conv.0.weight")),
        _BACKBONE,
    ),
    UnsupportedModel(
        "xiaolai's MobileNetV3 classifier",
        Signature(present=("linear4.weight",), starts=("bneck.",)),
        _BACKBONE,
    ),
    UnsupportedModel(
        "leaderj's or tongyuhome's MobileNetV3 classifier",
        Signature(present=("init_conv.0.weight", "block.0.conv.0.weight")),
        _BACKBONE,
    ),
    UnsupportedModel(
        "jungin500's MobileNetV3 classifier",
        Signature(present=("features.3.bottleneck_0_0.weight",)),
        _BACKBONE,
    ),
    UnsupportedModel(
        "torchvision's MobileNetV2 classifier",
        Signature(present=("features.1.conv.0.0.weight", "classifier.1.weight")),
        _NOT_V3,
    ),
    UnsupportedModel(
        "a torchvision ResNet classifier",
        Signature(present=("conv1.weight", "layer1.0.conv1.weight", "fc.weight")),
        _NOT_V3,
    ),
    UnsupportedModel(
        "a torchvision VGG classifier",
        Signature(present=("features.0.weight", "classifier.0.weight")),
        _NOT_V3,
    ),
    UnsupportedModel(
        "an Ultralytics YOLO detector",
        Signature(present=("0.conv.weight", "1.conv.weight")),  # behind the prefix `model.`
    ),
    UnsupportedModel(
        "a vision transformer",
        Signature(present=("class_token",), starts=("encoder.layers.",)),
    ),
    UnsupportedModel(
        "a DETR detector", Signature(present=("class_embed.weight", "query_embed.weight"))
    ),
)
