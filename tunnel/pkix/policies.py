"""Certificate policies, if a certificate of the path requires one (RFC 5280, 6.1.3 d to f, 6.1.4 a to j, 6.1.5)."""

from __future__ import annotations

from collections.abc import Sequence

from tunnel.errors import Denial, PeerDenied
from tunnel.lazy_dataclass import dataclass
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.extensions import INHIBIT_ANY_POLICY, POLICY_CONSTRAINTS, Extensions

_ANY = b"\x55\x1d\x20\x00"
_NEVER = 1 << 30


@dataclass(slots=True)
class _State:
    """The state at one certificate. Every policy is acceptable, so the policy tree is reduced to its set of leaves."""

    policies: frozenset[bytes] = frozenset({_ANY})
    explicit: int = _NEVER
    mapping: int = _NEVER
    any_policy: int = _NEVER

    def process(self, extensions: Extensions, *, may_be_any: bool) -> None:
        """Process the policies of a certificate (RFC 5280, 6.1.3 d to f)."""
        named = extensions.policies()
        kept = {one for one in named - {_ANY} if one in self.policies or _ANY in self.policies}
        if _ANY in named and (self.any_policy > 0 or may_be_any):
            kept |= self.policies
        self.policies = frozenset(kept)
        self.check()

    def check(self) -> None:
        """Raise PeerDenied if a policy is required and none is left."""
        if not self.explicit and not self.policies:
            raise PeerDenied(Denial.BAD_PATH, "an authority requires a certificate policy, and the path has none")

    def descend(self, certificate: Certificate) -> None:
        """Prepare for the next certificate (RFC 5280, 6.1.4 a, b, h to j)."""
        extensions = certificate.extensions
        self._map(extensions.policy_mappings())
        step = 0 if certificate.is_self_issued else 1
        constraints, inhibited = extensions.policy_constraints(), extensions.inhibit_any_policy()
        self.explicit = _lower(self.explicit - step, constraints.require_explicit)
        self.mapping = _lower(self.mapping - step, constraints.inhibit_mapping)
        self.any_policy = _lower(self.any_policy - step, inhibited)

    def _map(self, mappings: Sequence[tuple[bytes, bytes]]) -> None:
        if any(_ANY in pair for pair in mappings):
            raise PeerDenied(Denial.BAD_PATH, "a policy mapping to or from anyPolicy")
        sources = {source for source, _ in mappings}
        known = {one for one in sources if one in self.policies or _ANY in self.policies}
        mapped = {target for source, target in mappings if source in known} if self.mapping > 0 else set()
        self.policies = (self.policies - sources) | mapped


def check_policies(path: Sequence[Certificate]) -> None:
    """Check the policies that authorities require in a path, leaf first and anchor last; raises PeerDenied."""
    below = path[:-1]
    if not any({POLICY_CONSTRAINTS, INHIBIT_ANY_POLICY} & one.extensions.found.keys() for one in below):
        return
    state = _State()
    for depth in range(len(below) - 1, -1, -1):
        certificate = below[depth]
        state.process(certificate.extensions, may_be_any=bool(depth) and certificate.is_self_issued)
        if depth:
            state.descend(certificate)
    state.explicit = 0 if below[0].extensions.policy_constraints().require_explicit == 0 else max(state.explicit - 1, 0)
    state.check()


def _lower(held: int, limit: int | None) -> int:
    held = max(held, 0)
    return held if limit is None else min(held, limit)
