from .dcgan import (
    dcgan_discriminator as dcgan_discriminator,
    dcgan_generator as dcgan_generator,
)
from .densenet import (
    cifar_densenet as cifar_densenet,
)
from .gans import (
    low_rank_dcgan as low_rank_dcgan,
    ortho_resnet_gan as ortho_resnet_gan,
    resnet_gan as resnet_gan,
    sn_resnet_gan as sn_resnet_gan,
    srn_resnet_gan as srn_resnet_gan,
    wgan_gp_resnet_gan as wgan_gp_resnet_gan,
)
from .imagenet import (
    imagenet_alexnet as imagenet_alexnet,
    imagenet_vgg as imagenet_vgg,
)
from .inception import (
    fid_inception as fid_inception,
)
from .mnist import (
    mnist_convnet as mnist_convnet,
)
from .preresnet import (
    cifar_preresnet as cifar_preresnet,
    cifar_wrn as cifar_wrn,
)
from .pyramidnet import (
    cifar_pyramidnet as cifar_pyramidnet,
)
from .registry import (
    Checkpoint as Checkpoint,
    build as build,
    checkpoint as checkpoint,
    entry as entry,
    heavy_tail_models as heavy_tail_models,
    list_models as list_models,
)
from .resnet import (
    cifar_resnet as cifar_resnet,
)
from .resnet_gan_networks import (
    resnet_discriminator as resnet_discriminator,
    resnet_generator as resnet_generator,
)
from .small import (
    small_convnet as small_convnet,
)
from .vgg import (
    cifar_alexnet as cifar_alexnet,
    cifar_vgg as cifar_vgg,
)
