"""Read the tensors in files of torch.save, of both formats, without PyTorch.

Nothing in a file is ever run: a call in it becomes a description. `torch.load` trusts the sizes in
a file and checks no checksum: a tensor that claims too many numbers exposes the memory of the
process, or ends it. This module checks sizes before it allocates anything, and the checksum of
each member of an archive.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from spslam.errors import WeightsError
from spslam.notices import counted

# Most bytes in memory for each byte in the file: half precision becomes single precision, and
# numbers may repeat.
MOST_GROWTH = 10
# Bytes in memory that every file may use in addition, for small archives.
_SLACK = 1 << 16
# The first two numbers in a file of the format before PyTorch 1.6.
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# NumPy's number types by PyTorch's storage classes.
_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
    "ComplexFloatStorage": "c8",
    "ComplexDoubleStorage": "c16",
    "UntypedStorage": "u1",
}
# Number types by `torch.dtype`, for tensors over untyped bytes; "": needs PyTorch to convert.
_DTYPES = {"uint16": "u2", "uint32": "u4", "uint64": "u8", "float8_e4m3fn": "", "float8_e5m2": ""}
# Words for tensors that are refused, by a part of the name of the function that rebuilds them.
_WORDS = (
    ("sparse", "sparse"),
    ("qtensor", "quantised"),
    ("meta", "on the device `meta`, without numbers"),
)
# Types of the keys that dictionaries keep; hashing nested tuples may take for ever.
_KEYS = (str, int, float, bytes, type(None))
_Data = bytes | memoryview


@dataclass(frozen=True, eq=False)
class Opaque:
    """A stand-in for any object that is not a plain value, list, dictionary or tensor.

    Attributes:
        what: description of the object, for messages.
    """

    what: str

    def append(self, value: object) -> None:
        """Ignore the value."""

    def extend(self, values: object) -> None:
        """Ignore the values."""

    def __setitem__(self, key: object, value: object) -> None:
        """Ignore the item."""


@dataclass(frozen=True, eq=False)
class _Storage:
    """A range of stored numbers of one type.

    Attributes:
        kind: PyTorch's storage class, a key of `_STORAGES`.
        key: where the file stores the numbers.
        count: numbers in the range.
        first: where the range begins.
        whole: all numbers stored under `key`.
    """

    kind: str
    key: str
    count: int
    first: int = 0
    whole: int = 0


@dataclass(frozen=True, eq=False)
class PickledTensor:
    """A tensor as the file describes it; nothing is checked."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any
    dtype: str = ""


@dataclass(frozen=True, eq=False)
class _Global:
    """A name in a module that the file refers to; calling it returns a description."""

    module: str
    name: str

    def __call__(self, *arguments: Any) -> Any:
        if (self.module, self.name) == ("collections", "OrderedDict"):
            pairs = arguments[0] if arguments else ()
            return {key: value for key, value in pairs if isinstance(key, _KEYS)}
        if not self.module.startswith("torch"):
            return Opaque(f"{self.module}.{self.name}")
        if self.name == "_rebuild_parameter" and arguments:
            return arguments[0]
        if self.name in ("_rebuild_tensor", "_rebuild_tensor_v2") and len(arguments) >= 4:
            return PickledTensor(*arguments[:4])
        if self.name == "_rebuild_tensor_v3" and len(arguments) >= 7:
            storage, offset, shape, strides = arguments[:4]
            return PickledTensor(
                storage, offset, shape, strides, getattr(arguments[6], "name", "?")
            )
        return Opaque(
            next((word for part, word in _WORDS if part in self.name), f"{self.module}.{self.name}")
        )


# Python's own unpickler; unlike the C class, each of its steps can be replaced.
_PythonUnpickler: Any = pickle._Unpickler


class _Unpickler(_PythonUnpickler):  # type: ignore[misc]
    """An unpickler that describes objects; the C class would allocate memory as the file says."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(_PythonUnpickler.dispatch)

    def __init__(self, file: io.BytesIO) -> None:
        # The encoding of names that Python 2 wrote.
        super().__init__(file, encoding="utf-8", errors="replace")

    def find_class(self, module: str, name: str) -> Any:
        return _Global(module, name)

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError("extension")

    def persistent_load(self, pid: Any) -> Any:
        # ("storage", type, key, device, count of numbers[, view of another storage]).
        _, kind, key, _, count, *view = pid
        if not _is_count(count):
            raise pickle.UnpicklingError("count")
        if view and view[0] is not None:
            _, first, part = view[0]
            if not (_is_count(first) and _is_count(part)):
                raise pickle.UnpicklingError("view")
            return _Storage(kind.name, str(key), part, first, count)
        return _Storage(kind.name, str(key), count, 0, count)

    def _new(self) -> None:
        self.stack.pop()
        cls = self.stack.pop()
        self.stack.append(Opaque(f"{cls.module}.{cls.name}"))

    def _new_with_keywords(self) -> None:
        self.stack.pop()
        self._new()

    def _build(self) -> None:
        # Drop the attributes of an object, such as the versions of modules.
        self.stack.pop()

    def _set_items(self) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing tuples of tuples may take for ever.
            if isinstance(key, _KEYS):
                target[key] = value

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        if isinstance(key, _KEYS):
            self.stack[-1][key] = value

    def _dictionary(self) -> None:
        items = self.pop_mark()
        pairs = zip(items[::2], items[1::2], strict=True)
        self.append({key: value for key, value in pairs if isinstance(key, _KEYS)})

    def _list(self) -> None:
        self.append([])

    def _add_items(self) -> None:
        items = self.pop_mark()
        self.stack[-1].extend(items)

    def _frozen(self) -> None:
        self.append(self.pop_mark())

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("what torch.save never writes")

    dispatch[pickle.NEWOBJ[0]] = _new
    dispatch[pickle.NEWOBJ_EX[0]] = _new_with_keywords
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.DICT[0]] = _dictionary
    dispatch[pickle.EMPTY_SET[0]] = _list
    dispatch[pickle.ADDITEMS[0]] = _add_items
    dispatch[pickle.FROZENSET[0]] = _frozen
    for _code in (
        pickle.INST,
        pickle.OBJ,
        pickle.BYTEARRAY8,
        pickle.NEXT_BUFFER,
        pickle.READONLY_BUFFER,
    ):
        dispatch[_code[0]] = _refuse


class PickledFile:
    """The content of a file of torch.save.

    Args:
        path: path of the file.

    Attributes:
        content: plain values, lists, dictionaries, `PickledTensor`s and `Opaque`s.

    Raises:
        WeightsError: the file cannot be read, is damaged, or was not written by torch.save.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            data = path.read_bytes()
        except OSError as error:
            raise WeightsError(
                f"weights {path} cannot be read: {error.strerror or error}"
            ) from None
        self._most = MOST_GROWTH * len(data) + _SLACK
        self._grown = 0
        self._order: Literal["<", ">"] = "<"
        self._stored: Mapping[str, _Data] = {}
        self.content: Any
        try:
            if data.startswith(b"PK"):
                self._read_archive(data)
            else:
                self._read_stream(data)
        except WeightsError:
            raise
        except zipfile.BadZipFile as error:
            raise WeightsError(f"{path} is damaged ({error}): fetch or save it again") from None
        except Exception as error:
            # Other bytes may make the unpickler fail in any way.
            raise WeightsError(
                f"{path} is not a file of plain PyTorch weights, and nothing else is unpickled: "
                "expected a dictionary of tensors written by torch.save, "
                f"found bytes that do not load ({type(error).__name__})"
            ) from None

    def check(self) -> None:
        """Check each tensor in the content, before PyTorch reads the file.

        Raises:
            WeightsError: the file does not hold the numbers that a tensor claims.
        """
        seen: set[int] = set()
        waiting = [self.content]
        while waiting:
            found = waiting.pop()
            if isinstance(found, PickledTensor):
                self.array(found, "a tensor")
            elif isinstance(found, dict | list | tuple) and id(found) not in seen:
                seen.add(id(found))
                waiting += found.values() if isinstance(found, dict) else found

    def array(self, tensor: PickledTensor, name: str) -> NDArray[Any]:
        """Return the numbers of a tensor; bfloat16 and 8-bit floats become float32.

        Args:
            tensor: from the content.
            name: of the tensor, for messages.

        Raises:
            WeightsError: the file does not hold the numbers that the tensor claims.
        """
        storage, shape, strides, first = tensor.storage, tensor.shape, tensor.strides, tensor.offset
        numbers = (
            (*shape, *strides, first)
            if isinstance(shape, tuple) and isinstance(strides, tuple)
            else (-1,)
        )
        whole = all(map(_is_count, numbers)) and len(shape) == len(strides)
        if not whole or not isinstance(storage, _Storage) or len(shape) > 32:
            raise self._lies(name, "expected a shape and strides")
        flat = self._numbers(storage, tensor.dtype, name)
        count = math.prod(shape)
        last = (
            first + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
            if count
            else 0
        )
        if last >= len(flat) and count:
            raise self._lies(
                name, f"shape {shape} needs more than {counted(len(flat), 'stored number')}"
            )
        self._grown += 4 * count
        if self._grown > self._most:
            raise self._lies(name, f"shape {shape} repeats few numbers")
        if not count:
            return np.zeros(shape, flat.dtype)
        steps = tuple(stride * flat.itemsize for stride in strides)
        return np.array(np.lib.stride_tricks.as_strided(flat[first:], shape, steps), order="C")

    def _numbers(self, storage: _Storage, dtype: str, name: str) -> NDArray[Any]:
        """Return the numbers of a storage, flat."""
        kind = _STORAGES.get(storage.kind)
        data = self._stored.get(storage.key)
        if kind is None or data is None or (dtype and dtype not in _DTYPES):
            raise self._lies(
                name, f"expected numbers of a known type, found {dtype or storage.kind}"
            )
        size = 2 if kind == "bfloat16" else np.dtype(kind).itemsize
        if (
            storage.whole * size != len(data)
            or not 0 <= storage.first <= storage.whole - storage.count
        ):
            raise self._lies(
                name,
                f"expected {counted(storage.whole, 'number')} of {counted(size, 'byte')}, "
                f"found {counted(len(data), 'byte')}",
            )
        part = memoryview(data)[storage.first * size : (storage.first + storage.count) * size]
        if dtype.startswith("float8"):
            return _from_eight_bits(part, dtype)
        if kind == "bfloat16":
            return (np.frombuffer(part, self._order + "u2").astype(np.uint32) << 16).view(
                np.float32
            )
        return np.frombuffer(part, np.dtype(_DTYPES.get(dtype) or kind).newbyteorder(self._order))

    def _lies(self, name: str, why: str) -> WeightsError:
        """Make the error for a tensor that does not agree with the file."""
        return WeightsError(f"{self._path} is damaged: {name}: {why}")

    def _read_archive(self, data: bytes) -> None:
        """Read the format since PyTorch 1.6: a zip archive of a pickle and the numbers."""
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            claimed = sum(info.file_size for info in members.values())
            if claimed > self._most or len(members) < len(archive.infolist()):
                raise WeightsError(
                    f"{self._path} is damaged: its {len(data)} bytes claim to hold {claimed} bytes "
                    f"in {counted(len(archive.infolist()), 'file')}"
                )
            pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
            folder = pickles[0].removesuffix("data.pkl") if len(pickles) == 1 else ""
            if f"{folder}constants.pkl" in members or any(
                name.startswith(f"{folder}code/") for name in members
            ):
                raise WeightsError(
                    f"{self._path} is a TorchScript program, not weights: save its weights alone, "
                    "torch.save(torch.jit.load(file).state_dict(), new)"
                )
            if len(pickles) != 1:
                raise WeightsError(
                    f"{self._path} is an archive but not a file of plain PyTorch weights: "
                    f"expected data.pkl in it, found {_listed(members)}"
                )
            read = {name: _member(archive, info) for name, info in members.items()}
        self._order = ">" if read.get(f"{folder}byteorder") == b"big" else "<"
        prefix = f"{folder}data/"
        self._stored = {
            name.removeprefix(prefix): part
            for name, part in read.items()
            if name.startswith(prefix)
        }
        self.content = _Unpickler(io.BytesIO(read[pickles[0]])).load()

    def _read_stream(self, data: bytes) -> None:
        """Read the format before PyTorch 1.6: pickles one after another, then the numbers."""
        file = io.BytesIO(data)
        if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != _PROTOCOL:
            raise pickle.UnpicklingError("magic number")
        system = _Unpickler(file).load()
        self._order = "<" if system.get("little_endian", True) else ">"
        seen: dict[str, int] = {}

        class Noting(_Unpickler):
            def persistent_load(self, pid: Any) -> Any:
                storage = super().persistent_load(pid)
                kind = _STORAGES[storage.kind]
                seen[storage.key] = 2 if kind == "bfloat16" else np.dtype(kind).itemsize
                return storage

        self.content = Noting(file).load()
        keys = _Unpickler(file).load()
        stored, start, whole = {}, file.tell(), memoryview(data)
        for key in keys:
            count = int.from_bytes(whole[start : start + 8], "little")
            end = start + 8 + count * seen[str(key)]
            if end > len(data):
                raise WeightsError(f"{self._path} is damaged: it ends before its numbers do")
            stored[str(key)] = whole[start + 8 : end]
            start = end
        self._stored = stored


def _is_count(number: object) -> bool:
    """Whether a value can count numbers in a file; printing a huge integer may take minutes."""
    return isinstance(number, int) and 0 <= number < 1 << 48


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Read a member of an archive, and check its checksum if it has one."""
    if not info.CRC:
        # Without a checksum, as `torch.serialization.set_crc32_options` allows.
        info.CRC = None  # type: ignore[assignment]
    return archive.read(info)


def _from_eight_bits(data: _Data, dtype: str) -> NDArray[np.float32]:
    """Convert 8-bit floats to float32."""
    import torch

    values: NDArray[np.float32] = (
        torch.tensor(list(range(256)), dtype=torch.uint8)
        .view(getattr(torch, dtype))
        .float()
        .numpy()
    )
    return values[np.frombuffer(data, np.uint8)]


def _listed(names: Mapping[str, Any]) -> str:
    """List the first three names."""
    return ", ".join(sorted(repr(name[:40]) for name in names)[:3]) or "nothing"
