"""Without the extra, one line says how to install it."""

import pytest

from kdsweep.errors import ShippingError
from kdsweep.shipping.extra import need


def test_what_is_missing_is_named_with_the_way_to_install_it() -> None:
    need("json")
    with pytest.raises(ShippingError) as caught:
        need("json", "no_such_package")
    assert str(caught.value) == "exported students need no_such_package: pip install 'kdsweep[export]'"
