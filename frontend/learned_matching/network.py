"""The network of the learned matcher: self- and cross-attention over the keypoints of two images.

Source: Lindenberger, Sarlin, Pollefeys: LightGlue, local feature matching at light speed, ICCV 2023
(arXiv 2306.13643), section 3. Written from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .weights import HEAD_WIDTH, MatcherShape

# Initial factor of the similarity. With unit descriptors and random layers that add nothing, the
# double softmax then has about the temperature at which SuperPoint's descriptors were trained.
_SIMILARITY_SCALE = 1.3
# Initial matchability: sigmoid(1) = 0.73. Most points of a pair of views have a match.
_MATCHABLE_BIAS = 1.0
# Similarity of a pair with a padded point: the softmax gives it no weight.
_PADDING = -1e4


@dataclass(frozen=True)
class Assignment:
    """Logits of a soft assignment between the points of two images.

    Attributes:
        similarity: (B, N, M).
        matchable0: (B, N), logit of the probability that a point has a match.
        matchable1: (B, M).
    """

    similarity: Tensor
    matchable0: Tensor
    matchable1: Tensor

    def log_probability(self) -> Tensor:
        """Return the logarithm (B, N, M) of the double softmax times both matchabilities."""
        pairs = self.similarity.log_softmax(1) + self.similarity.log_softmax(2)
        points0 = functional.logsigmoid(self.matchable0)[..., None]
        points1 = functional.logsigmoid(self.matchable1)[:, None]
        return pairs + points0 + points1


@dataclass(frozen=True)
class ImageState:
    """States of the points of one image between two layers.

    Attributes:
        states: (B, N, C).
        rotation: cosine and sine (2, B, 1, N, `HEAD_WIDTH`) of the position encoding.
        exist: (B, 1, 1, N) bool, which points are real; None: all.
    """

    states: Tensor
    rotation: Tensor
    exist: Tensor | None = None

    def with_states(self, states: Tensor) -> ImageState:
        """Return the same points with other states."""
        return ImageState(states, self.rotation, self.exist)

    def select(self, rows: Tensor) -> ImageState:
        """Return only the points `rows` (K,); for all images of the batch."""
        exist = None if self.exist is None else self.exist[..., rows]
        return ImageState(self.states[:, rows], self.rotation[:, :, :, rows], exist)


class PositionEncoding(nn.Module):
    """Angles by which the channels of queries and keys are rotated, linear in the position.

    The scalar product of a rotated query and key depends only on the difference of their positions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = nn.Linear(2, HEAD_WIDTH // 2, bias=False)
        nn.init.normal_(self.frequencies.weight, std=1.0)

    def forward(self, positions: Tensor) -> Tensor:
        """Return cosine and sine (2, B, 1, N, `HEAD_WIDTH`) for positions (B, N, 2)."""
        # Angles in full precision: their cosine decides what bf16 would round away.
        angles = positions.float() @ self.frequencies.weight.float().T
        angles = torch.cat([angles, angles], dim=-1)
        return torch.stack([angles.cos(), angles.sin()])[:, :, None]


class Update(nn.Module):
    """Adds to each state what a two-layer network makes of the state and its message."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(2 * width, 2 * width)
        self.norm = nn.LayerNorm(2 * width)
        # A module, so that an export can write it in other operators.
        self.activation: nn.Module = nn.GELU()
        self.second = nn.Linear(2 * width, width)
        # The network starts as a matcher of nearest neighbours.
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, states: Tensor, message: Tensor) -> Tensor:
        """Return the updated states (B, N, C) for states and messages (B, N, C)."""
        hidden = self.norm(self.first(torch.cat([states, message], dim=-1)))
        updated: Tensor = states + self.second(self.activation(hidden))
        return updated


class SelfAttention(nn.Module):
    """Each point reads the points of its own image, depending on their relative positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.update = Update(width)

    def forward(self, image: ImageState) -> ImageState:
        """Return the points with updated states."""
        query, key, value = (_heads(x) for x in self.project(image.states).chunk(3, dim=-1))
        query, key = (_rotated(x, image.rotation) for x in (query, key))
        message = _attend(query, key, value, image.exist)
        return image.with_states(self.update(image.states, self.merge(message)))


class CrossAttention(nn.Module):
    """Each point reads the points of the other image; queries and keys have the same projection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.merge = nn.Linear(width, width)
        self.update = Update(width)

    def forward(self, image0: ImageState, image1: ImageState) -> tuple[ImageState, ImageState]:
        """Return both images with updated states."""
        key0, key1 = _heads(self.key(image0.states)), _heads(self.key(image1.states))
        value0, value1 = _heads(self.value(image0.states)), _heads(self.value(image1.states))
        message0 = _attend(key0, key1, value1, image1.exist)
        message1 = _attend(key1, key0, value0, image0.exist)
        return (
            image0.with_states(self.update(image0.states, self.merge(message0))),
            image1.with_states(self.update(image1.states, self.merge(message1))),
        )


class AssignmentHead(nn.Module):
    """Similarities of all pairs of points, and the matchability of each point."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, width)
        self.matchable = nn.Linear(width, 1)
        with torch.no_grad():
            self.project.weight.copy_(_SIMILARITY_SCALE * torch.eye(width))
            self.project.bias.zero_()
            self.matchable.weight.mul_(0.1)
            self.matchable.bias.fill_(_MATCHABLE_BIAS)

    def forward(self, image0: ImageState, image1: ImageState) -> Assignment:
        """Return the logits; those of pairs with padding are very low."""
        width = image0.states.shape[-1]
        projected0, projected1 = (
            self.project(image.states) * width**-0.25 for image in (image0, image1)
        )
        similarity = (projected0 @ projected1.transpose(1, 2)).float()
        if image0.exist is not None:
            similarity = similarity.masked_fill(~image0.exist[:, 0].transpose(1, 2), _PADDING)
        if image1.exist is not None:
            similarity = similarity.masked_fill(~image1.exist[:, 0], _PADDING)
        return Assignment(
            similarity, self.matchability(image0.states), self.matchability(image1.states)
        )

    def matchability(self, states: Tensor) -> Tensor:
        """Return the logit (B, N) of the probability that a point has a match."""
        logit: Tensor = self.matchable(states)[..., 0].float()
        return logit


class MatcherNetwork(nn.Module):
    """Matches keypoints of two images from their positions and unit descriptors.

    Args:
        shape: size of the network.
    """

    def __init__(self, shape: MatcherShape) -> None:
        super().__init__()
        self.shape = shape
        self.input = nn.Linear(shape.descriptor_dim, shape.width)
        self.encoding = PositionEncoding()
        self.self_attention = nn.ModuleList(SelfAttention(shape.width) for _ in range(shape.layers))
        self.cross_attention = nn.ModuleList(
            CrossAttention(shape.width) for _ in range(shape.layers)
        )
        self.heads = nn.ModuleList(AssignmentHead(shape.width) for _ in range(shape.layers))
        self.confidence = nn.ModuleList(nn.Linear(shape.width, 1) for _ in range(shape.layers - 1))
        with torch.no_grad():
            nn.init.orthogonal_(self.input.weight)
            self.input.bias.zero_()

    @torch.no_grad()
    def keep_variance(self, descriptors: Tensor) -> None:
        """Project descriptors (S, D) at first onto their directions of largest variance."""
        moments = descriptors.double().T @ descriptors.double() / len(descriptors)
        _, directions = torch.linalg.eigh(moments)
        count = min(self.shape.width, self.shape.descriptor_dim)
        self.input.weight.zero_()
        self.input.weight[:count] = directions.flip(1)[:, :count].T.float()

    def embed(self, positions: Tensor, descriptors: Tensor, exist: Tensor | None) -> ImageState:
        """Return the states before the first layer.

        Args:
            positions: (B, N, 2), from `normalised_positions`.
            descriptors: (B, N, D) unit.
            exist: (B, N) bool, which points are real; None: all.
        """
        # Elements of about unit size, as the layers expect them; in full precision, to which each
        # layer adds.
        states = self.input(descriptors).float() * self.shape.width**0.5
        mask = None if exist is None else exist[:, None, None]
        return ImageState(states, self.encoding(positions), mask)

    def layer(
        self, index: int, image0: ImageState, image1: ImageState
    ) -> tuple[ImageState, ImageState]:
        """Apply one layer of self- and cross-attention."""
        attention = self.self_attention[index]
        images: tuple[ImageState, ImageState] = self.cross_attention[index](
            attention(image0), attention(image1)
        )
        return images

    def forward(
        self,
        positions0: Tensor,
        descriptors0: Tensor,
        positions1: Tensor,
        descriptors1: Tensor,
    ) -> Tensor:
        """Return the logarithm (B, N, M) of the probability of each match, after all layers."""
        image0 = self.embed(positions0, descriptors0, None)
        image1 = self.embed(positions1, descriptors1, None)
        for index in range(self.shape.layers):
            image0, image1 = self.layer(index, image0, image1)
        assignment: Assignment = self.heads[-1](image0, image1)
        return assignment.log_probability()

    @property
    def parameter_count(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())


def normalised_positions(keypoints: Tensor, size: Tensor) -> Tensor:
    """Map pixels (B, N, 2) to about [-1, 1]: the middle to 0, half of the longer side to 1.

    Args:
        keypoints: pixels; (0, 0) is the centre of the first pixel.
        size: (B, 2), width and height, pixels.
    """
    centre = (size - 1)[:, None] / 2
    return (keypoints - centre) / (size.amax(dim=1)[:, None, None] / 2)


def _heads(states: Tensor) -> Tensor:
    """Split channels (B, N, C) into heads (B, H, N, `HEAD_WIDTH`)."""
    batch, count, width = states.shape
    return states.reshape(batch, count, width // HEAD_WIDTH, HEAD_WIDTH).transpose(1, 2)


def _rotated(states: Tensor, rotation: Tensor) -> Tensor:
    """Rotate channel i and i + half of each head (B, H, N, W) by the same angle."""
    half1, half2 = states.chunk(2, dim=-1)
    turned = torch.cat([-half2, half1], dim=-1)
    return states * rotation[0].to(states.dtype) + turned * rotation[1].to(states.dtype)


def _attend(query: Tensor, key: Tensor, value: Tensor, exist: Tensor | None) -> Tensor:
    """Return the messages (B, N, C): means of `value`, weighted by scaled products."""
    message = functional.scaled_dot_product_attention(query, key, value, attn_mask=exist)
    return message.transpose(1, 2).flatten(-2)
