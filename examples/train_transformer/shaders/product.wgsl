// A product of matrices by tiles: a workgroup an output tile of 32 by 32, four by four elements an
// invocation. What is multiplied, and where it goes, say `left`, `right` and `store`, which the three files
// linear*.wgsl define.

const TILE = 32u;
const QUADS = TILE / 4u;

// By inner index; of the rows of the left matrix and the columns of the right one, four to a vector.
var<workgroup> lefts: array<array<vec4f, QUADS>, TILE>;
var<workgroup> rights: array<array<vec4f, QUADS>, TILE>;

fn load(row: u32, column: u32, inner: u32, lane: u32) {
    for (var i = lane; i < TILE * QUADS; i += 64u) {
        let k = inner + i / QUADS;
        let r = row + 4u * (i % QUADS);
        let quad = vec4f(left(r, k), left(r + 1u, k), left(r + 2u, k), left(r + 3u, k));
        lefts[i / QUADS][i % QUADS] = quad;
    }
    for (var i = lane; i < TILE * QUADS; i += 64u) {
        let k = inner + i / QUADS;
        let c = column + 4u * (i % QUADS);
        let quad = vec4f(right(k, c), right(k, c + 1u), right(k, c + 2u), right(k, c + 3u));
        rights[i / QUADS][i % QUADS] = quad;
    }
}

// Rows and columns of the output and the inner dimension are multiples of the tile.
@compute @workgroup_size(64)
fn product(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * TILE;
    let column = group.x * TILE;
    let own_row = lane / QUADS;
    let own_column = lane % QUADS;
    var sum: mat4x4f;
    for (var inner = 0u; inner < inner_dimension(); inner += TILE) {
        load(row, column, inner, lane);
        workgroupBarrier();
        for (var k = 0u; k < TILE; k++) {
            let a = lefts[k][own_row];
            let b = rights[k][own_column];
            sum += mat4x4f(a.x * b, a.y * b, a.z * b, a.w * b);
        }
        workgroupBarrier();
    }
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            store(row + 4u * own_row + r, column + 4u * own_column + c, sum[r][c]);
        }
    }
}
