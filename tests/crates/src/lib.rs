//! What the tests of other crates share: real peers, started on ports of their own and gone afterwards.
