"""The folders that are sent with a job hold all of this code."""

from __future__ import annotations

import xdub
import xdub_kernels
from xdub.submit.packages import EXCLUDED, package_folders


def test_the_folders_are_those_that_this_process_imports_with_code_and_weights() -> None:
    product, kernels = package_folders()
    assert [product / "__init__.py", kernels / "__init__.py"] == [
        product.parent / "xdub" / "__init__.py",
        kernels.parent / "xdub_kernels" / "__init__.py",
    ]
    assert str(product / "__init__.py") == xdub.__file__
    assert str(kernels / "__init__.py") == xdub_kernels.__file__
    assert (product / "weights_tiny" / "generator.safetensors").is_file()


def test_only_what_python_writes_while_it_imports_is_excluded() -> None:
    assert EXCLUDED == ("__pycache__",)
