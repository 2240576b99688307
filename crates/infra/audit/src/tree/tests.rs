use super::*;
use crate::chain::leaf_digest;
use proptest::prelude::*;

/// The leaves of the tests of RFC 6962's reference implementation.
const LEAVES: [&[u8]; 8] = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
];

/// Its roots, for the first 1 to 8 leaves.
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn published() -> Vec<Hash> {
    LEAVES.iter().map(|leaf| leaf_digest(leaf)).collect()
}

fn numbered(size: u64) -> Vec<Hash> {
    (0..size).map(|i| leaf_digest(&i.to_be_bytes())).collect()
}

/// The definition of RFC 9162 section 2.1.1, word for word.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let mut k = 1;
            while k * 2 < leaves.len() {
                k *= 2;
            }
            node_hash(&naive_root(&leaves[..k]), &naive_root(&leaves[k..]))
        }
    }
}

/// PATH of RFC 9162 section 2.1.3.1.
fn naive_inclusion(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let mut k = 1;
    while k * 2 < leaves.len() {
        k *= 2;
    }
    let (mut path, sibling) = if m < k {
        (naive_inclusion(m, &leaves[..k]), naive_root(&leaves[k..]))
    } else {
        (naive_inclusion(m - k, &leaves[k..]), naive_root(&leaves[..k]))
    };
    path.push(sibling);
    path
}

/// SUBPROOF of RFC 9162 section 2.1.4.1.
fn naive_consistency(m: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if m == leaves.len() {
        return if whole { Vec::new() } else { vec![naive_root(leaves)] };
    }
    let mut k = 1;
    while k * 2 < leaves.len() {
        k *= 2;
    }
    let (mut path, sibling) = if m <= k {
        (naive_consistency(m, &leaves[..k], whole), naive_root(&leaves[k..]))
    } else {
        (naive_consistency(m - k, &leaves[k..], false), naive_root(&leaves[..k]))
    };
    path.push(sibling);
    path
}

fn resolved(ranges: &[Range], leaves: &[Hash]) -> Vec<Hash> {
    let leaf = |lo: u64, hi: u64| &leaves[lo as usize..hi as usize];
    ranges
        .iter()
        .map(|(lo, hi)| {
            let subtrees: Vec<Hash> =
                cover(*lo, *hi).iter().map(|(h, i)| merkle(leaf(i << h, (i + 1) << h))).collect();
            range_root(&subtrees)
        })
        .collect()
}

#[test]
fn the_roots_of_the_published_leaves_are_the_published_ones() {
    let leaves = published();
    for (n, root) in ROOTS.iter().enumerate() {
        assert_eq!(hex::encode(merkle(&leaves[..=n])), *root, "{} leaves", n + 1);
    }
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(hex::encode(merkle(&[])), empty);
}

#[test]
fn the_published_proofs_are_made_and_verify() {
    let leaves = published();
    let hexed = |proof: Vec<Hash>| proof.iter().map(hex::encode).collect::<Vec<_>>();
    let proof = resolved(&inclusion(5, 8), &leaves);
    assert_eq!(
        hexed(proof),
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    let proof = resolved(&consistency(6, 8), &leaves);
    assert_eq!(
        hexed(proof),
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
}

#[test]
fn every_proof_of_small_trees_is_that_of_the_definition_and_no_other_verifies() {
    let leaves = numbered(33);
    for n in 1..=leaves.len() {
        let (tree, root) = (&leaves[..n], naive_root(&leaves[..n]));
        for m in 0..n {
            let proof = resolved(&inclusion(m as u64, n as u64), tree);
            assert_eq!(proof, naive_inclusion(m, tree));
            assert!(verify_inclusion(&tree[m], m as u64, n as u64, &proof, &root));
            for other in (0..n as u64 + 2).filter(|other| *other != m as u64) {
                assert!(!verify_inclusion(&tree[m], other, n as u64, &proof, &root), "{m} as {other} of {n}");
            }
            let longer = [proof.clone(), vec![root]].concat();
            assert!(!verify_inclusion(&tree[m], m as u64, n as u64, &longer, &root));
        }
        for m in 1..=n {
            let (proof, old) = (resolved(&consistency(m as u64, n as u64), tree), naive_root(&tree[..m]));
            assert_eq!(proof, naive_consistency(m, tree, true));
            assert!(verify_consistency(m as u64, n as u64, &proof, &old, &root));
            assert!(!verify_consistency(m as u64, n as u64, &proof, &empty_root(), &root));
            assert!(!verify_consistency(m as u64, n as u64, &proof, &old, &empty_root()));
            let longer = [proof, vec![root]].concat();
            assert!(!verify_consistency(m as u64, n as u64, &longer, &old, &root));
        }
    }
}

#[test]
fn tiles_hold_the_hashes_of_their_level_and_restore_the_tree() {
    let leaves = numbered(TILE_WIDTH * TILE_WIDTH + 700);
    let (mut tree, mut tiles) = (Tree::default(), Vec::new());
    for (n, leaf) in leaves.iter().enumerate() {
        tree.push(*leaf, &mut tiles);
        let n = n as u64 + 1;
        if n.is_multiple_of(9001) || [255, 256, 257, 65535, 65536, 65537].contains(&n) {
            let of = |level: u32| -> Vec<Hash> {
                let hashes = tiles.iter().filter(|tile| tile.level == level - 1).map(|tile| tile.root);
                hashes.skip((n >> (8 * level) & !255) as usize).collect()
            };
            let mut open = vec![leaves[(n & !255) as usize..n as usize].to_vec()];
            open.extend((1..levels(n) as u32).map(of));
            let restored = Tree::restore(n, open).unwrap();
            assert_eq!(restored.frontier(), tree.frontier(), "at {n}");
            assert_eq!(restored.frontier().root(), naive_root(&leaves[..n as usize]));
        }
    }
    let places: Vec<(u32, u64)> = tiles.iter().map(|tile| (tile.level, tile.index)).collect();
    let expected: Vec<(u32, u64)> =
        (0..256).map(|i| (0, i)).chain([(1, 0)]).chain((256..258).map(|i| (0, i))).collect();
    assert_eq!(places, expected);
    assert!(tiles.iter().all(|tile| tile.hashes.len() == 256 && tile.root == merkle(&tile.hashes)));
    assert_eq!(tiles[3].hashes, leaves[768..1024]);
    assert_eq!(tiles[256].hashes[255], tiles[255].root);
}

#[test]
fn a_frontier_survives_its_bytes_and_another_size_is_refused() {
    let mut frontier = Frontier::default();
    for leaf in numbered(11) {
        frontier.push(leaf, |_, _| {});
    }
    let bytes = frontier.to_bytes();
    assert_eq!(Frontier::from_bytes(11, &bytes), Some(frontier));
    assert_eq!(Frontier::from_bytes(12, &bytes), None);
    assert_eq!(Frontier::from_bytes(11, &bytes[1..]), None);
    assert_eq!(Tree::restore(11, vec![numbered(10)]), None);
    assert_eq!(Tree::restore(300, vec![numbered(44)]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn proofs_of_random_trees_are_those_of_the_definition(size in 1u64..3000, a in 0u64..3000, b in 1u64..3000) {
        let (leaves, index, old) = (numbered(size), a % size, b % size + 1);
        let root = naive_root(&leaves);
        let mut frontier = Frontier::default();
        for leaf in &leaves {
            frontier.push(*leaf, |_, _| {});
        }
        prop_assert_eq!(frontier.root(), root);
        let proof = resolved(&inclusion(index, size), &leaves);
        prop_assert_eq!(&proof, &naive_inclusion(index as usize, &leaves));
        prop_assert!(verify_inclusion(&leaves[index as usize], index, size, &proof, &root));
        let proof = resolved(&consistency(old, size), &leaves);
        prop_assert_eq!(&proof, &naive_consistency(old as usize, &leaves, true));
        prop_assert!(verify_consistency(old, size, &proof, &naive_root(&leaves[..old as usize]), &root));
    }

    #[test]
    fn a_proof_with_a_changed_bit_does_not_verify(size in 2u64..600, a in 0u64..600, at in 0usize..320) {
        let (leaves, index) = (numbered(size), a % size);
        let root = naive_root(&leaves);
        let mut proof = resolved(&inclusion(index, size), &leaves);
        let at = at % (proof.len() * 32);
        proof[at / 32][at % 32] ^= 1;
        prop_assert!(!verify_inclusion(&leaves[index as usize], index, size, &proof, &root));
    }
}

/// Whole proofs of ours, checked by another implementation of RFC 6962, and the other way round.
mod case_3 {
    use super::*;
    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
    use sha2::Sha256;

    type Theirs = MemoryBackedTree<Sha256, Vec<u8>>;

    fn theirs(size: u64) -> Theirs {
        let mut tree = Theirs::new();
        (0..size).for_each(|i| tree.push(i.to_be_bytes().to_vec()));
        tree
    }

    fn root(hash: &Hash, size: u64) -> RootHash<Sha256> {
        RootHash::new((*hash).into(), size)
    }

    fn hashes(bytes: &[u8]) -> Vec<Hash> {
        bytes.chunks(32).map(|chunk| chunk.try_into().unwrap()).collect()
    }

    fn check_inclusion(tree: &Theirs, leaves: &[Hash], index: u64) {
        let size = leaves.len() as u64;
        let (our_root, our_proof) = (merkle(leaves), resolved(&inclusion(index, size), leaves));
        let as_theirs = InclusionProof::<Sha256>::from_bytes(our_proof.concat());
        let value = index.to_be_bytes().to_vec();
        root(&our_root, size).verify_inclusion(&value, index, &as_theirs).unwrap();
        let their_proof = hashes(tree.prove_inclusion(index as usize).as_bytes());
        let leaf = &leaves[index as usize];
        let their_root = Hash::from(*tree.root().as_bytes());
        assert!(verify_inclusion(leaf, index, size, &their_proof, &their_root), "{index} of {size}");
    }

    fn check_consistency(tree: &Theirs, leaves: &[Hash], old: u64) {
        let size = leaves.len() as u64;
        let (old_root, new_root) = (merkle(&leaves[..old as usize]), merkle(leaves));
        let our_proof = resolved(&consistency(old, size), leaves);
        let as_theirs = ConsistencyProof::<Sha256>::try_from_bytes(our_proof.concat()).unwrap();
        root(&new_root, size).verify_consistency(&root(&old_root, old), &as_theirs).unwrap();
        let their_proof = hashes(tree.prove_consistency((size - old) as usize).as_bytes());
        assert!(verify_consistency(old, size, &their_proof, &old_root, &new_root), "{old} to {size}");
    }

    #[test]
    fn case_3_every_proof_of_small_trees_agrees_with_ct_merkle() {
        for size in 1..=64 {
            let (tree, leaves) = (theirs(size), numbered(size));
            (0..size).for_each(|index| check_inclusion(&tree, &leaves, index));
            (1..size).for_each(|old| check_consistency(&tree, &leaves, old));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn case_3_proofs_of_random_trees_agree_with_ct_merkle(
            size in 65_u64..=5_000,
            places in proptest::collection::vec(any::<proptest::sample::Index>(), 12),
        ) {
            let (tree, leaves) = (theirs(size), numbered(size));
            for place in places {
                let at = place.index(size as usize) as u64;
                check_inclusion(&tree, &leaves, at);
                if at > 0 {
                    check_consistency(&tree, &leaves, at);
                }
            }
        }
    }
}
