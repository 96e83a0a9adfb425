//! Positions as 52-bit geohashes, distances on the sphere, and the score ranges that cover a search area.
//!
//! A position becomes 26 bits of latitude (even bits) and 26 of longitude (odd bits), so a square cell of the map is
//! one range of integers, and a sorted set whose scores are such integers can be searched by area. The projection's
//! limits, the earth's radius and the order in which cells are visited are the reference's: replies depend on them.

use smallvec::SmallVec;

pub const LON_MAX: f64 = 180.0;
pub const LAT_MAX: f64 = 85.05112878;
/// Bits per coordinate in a full hash.
pub const STEPS_MAX: u32 = 26;
/// Mean radius in metres, as the reference has it.
const EARTH_RADIUS_M: f64 = 6_372_797.560856;
/// Half the width of the map at the equator, in metres: the coarsest cell of a search has this size.
const MERCATOR_MAX_M: f64 = 20_037_726.37;
const RADIANS: f64 = std::f64::consts::PI / 180.0;

/// Longitude and latitude in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub lon: f64,
    pub lat: f64,
}

impl Point {
    /// Whether the projection has this position.
    pub fn is_valid(&self) -> bool {
        (-LON_MAX..=LON_MAX).contains(&self.lon) && (-LAT_MAX..=LAT_MAX).contains(&self.lat)
    }
}

/// Spreads the bits of `x` to the even bits of the result.
fn spread(x: u32) -> u64 {
    let mut v = u64::from(x);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        v = (v | v << shift) & mask;
    }
    v
}

/// The even bits of `v`, together.
fn gather(mut v: u64) -> u32 {
    v &= 0x5555_5555_5555_5555;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ] {
        v = (v | v >> shift) & mask;
    }
    v as u32
}

/// The share of the way from `-max` to `max`, in units of 2^-steps. The upper limit itself gives 2^steps, one bit
/// more than a hash has: the reference stores such scores, and decodes them.
fn quantize(value: f64, max: f64, steps: u32) -> u32 {
    ((value + max) / (max + max) * f64::from(1u32 << steps)) as u32
}

/// Lower and upper edge of a cell in one dimension.
fn edges(cell: u32, max: f64, steps: u32) -> (f64, f64) {
    let (parts, width) = (f64::from(1u32 << steps), max + max);
    let edge = |cell: u64| -max + cell as f64 / parts * width;
    (edge(u64::from(cell)), edge(u64::from(cell) + 1))
}

/// A square of the map, `steps` (1..=26) halvings in each dimension.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cell {
    x: u32,
    y: u32,
    steps: u32,
}

impl Cell {
    fn of(point: Point, steps: u32) -> Cell {
        Cell { x: quantize(point.lon, LON_MAX, steps), y: quantize(point.lat, LAT_MAX, steps), steps }
    }

    fn bits(&self) -> u64 {
        spread(self.y) | spread(self.x) << 1
    }

    fn lon(&self) -> (f64, f64) {
        edges(self.x, LON_MAX, self.steps)
    }

    fn lat(&self) -> (f64, f64) {
        edges(self.y, LAT_MAX, self.steps)
    }

    /// The cell this many columns and rows away, around the edges of the map. A direction that isn't moved in keeps its
    /// one bit too many on the map's upper edge, as the reference has it.
    fn step(&self, dx: i32, dy: i32) -> Cell {
        let mask = (1u32 << self.steps) - 1;
        let moved = |cell: u32, by: i32| if by == 0 { cell } else { cell.wrapping_add_signed(by) & mask };
        Cell { x: moved(self.x, dx), y: moved(self.y, dy), steps: self.steps }
    }

    /// The scores of the positions in the cell: from the first to just before the second.
    fn scores(&self) -> (u64, u64) {
        let shift = 2 * (STEPS_MAX - self.steps);
        (self.bits() << shift, (self.bits() + 1) << shift)
    }
}

/// The 52-bit hash of a valid position.
pub fn encode(point: Point) -> u64 {
    Cell::of(point, STEPS_MAX).bits()
}

/// The middle of the hash's cell. Any integer is accepted; the result is always a valid position.
pub fn decode(hash: u64) -> Point {
    let middle = |cell: u32, max: f64| {
        let (low, high) = edges(cell, max, STEPS_MAX);
        ((low + high) / 2.0).clamp(-max, max)
    };
    Point { lon: middle(gather(hash >> 1), LON_MAX), lat: middle(gather(hash), LAT_MAX) }
}

/// The standard geohash string of a position. Standard hashes span latitudes to the poles, so the position is
/// encoded anew; 52 bits fill ten characters, the eleventh is always `0`.
pub fn geohash_string(hash: u64) -> [u8; 11] {
    const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
    let point = decode(hash);
    let bits =
        spread(quantize(point.lat, 90.0, STEPS_MAX)) | spread(quantize(point.lon, LON_MAX, STEPS_MAX)) << 1;
    std::array::from_fn(|i| if i == 10 { b'0' } else { ALPHABET[(bits >> (52 - (i + 1) * 5) & 31) as usize] })
}

fn lat_distance_m(a: f64, b: f64) -> f64 {
    EARTH_RADIUS_M * (b * RADIANS - a * RADIANS).abs()
}

/// Distance on the sphere in metres, by the haversine formula.
pub fn distance_m(a: Point, b: Point) -> f64 {
    let v = ((b.lon * RADIANS - a.lon * RADIANS) / 2.0).sin();
    // 6 nm on the ground: the same meridian.
    if v.abs() <= 1e-15 {
        return lat_distance_m(a.lat, b.lat);
    }
    let (lat_a, lat_b) = (a.lat * RADIANS, b.lat * RADIANS);
    let u = ((lat_b - lat_a) / 2.0).sin();
    2.0 * EARTH_RADIUS_M * (u * u + lat_a.cos() * lat_b.cos() * v * v).sqrt().asin()
}

/// What a search encloses.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    Circle {
        radius_m: f64,
    },
    /// A rectangle along meridians and parallels.
    Box {
        width_m: f64,
        height_m: f64,
    },
    /// The vertices in order; straight edges in degrees.
    Polygon(Vec<Point>),
}

/// A search area: its shape, and the centre that distances are taken from.
#[derive(Clone, Debug)]
pub struct Area {
    center: Point,
    shape: Shape,
}

/// Limits in degrees.
struct Limits {
    west: f64,
    south: f64,
    east: f64,
    north: f64,
}

impl Area {
    pub fn circle(center: Point, radius_m: f64) -> Area {
        Area { center, shape: Shape::Circle { radius_m } }
    }

    pub fn rectangle(center: Point, width_m: f64, height_m: f64) -> Area {
        Area { center, shape: Shape::Box { width_m, height_m } }
    }

    /// The centre is where the mean of the vertices, as points in space, lies over the ground.
    pub fn polygon(vertices: Vec<Point>) -> Area {
        let (mut x, mut y, mut z) = (0.0f64, 0.0f64, 0.0f64);
        for vertex in &vertices {
            let (lon, lat) = (vertex.lon * RADIANS, vertex.lat * RADIANS);
            x += lat.cos() * lon.cos();
            y += lat.cos() * lon.sin();
            z += lat.sin();
        }
        let center = Point { lon: y.atan2(x) / RADIANS, lat: z.atan2((x * x + y * y).sqrt()) / RADIANS };
        Area { center, shape: Shape::Polygon(vertices) }
    }

    pub fn center(&self) -> Point {
        self.center
    }

    /// The distance in metres from the centre, if `point` is inside.
    pub fn distance_if_inside(&self, point: Point) -> Option<f64> {
        let inside = match &self.shape {
            Shape::Circle { radius_m } => {
                let distance = distance_m(self.center, point);
                return (distance <= *radius_m).then_some(distance);
            }
            Shape::Box { width_m, height_m } => {
                lat_distance_m(point.lat, self.center.lat) <= height_m / 2.0
                    && distance_m(point, Point { lon: self.center.lon, lat: point.lat }) <= width_m / 2.0
            }
            Shape::Polygon(vertices) => crossings(vertices, point) % 2 == 1,
        };
        inside.then(|| distance_m(self.center, point))
    }

    fn limits(&self) -> Limits {
        let (width_m, height_m) = match &self.shape {
            Shape::Circle { radius_m } => (*radius_m, *radius_m),
            Shape::Box { width_m, height_m } => (width_m / 2.0, height_m / 2.0),
            Shape::Polygon(vertices) => {
                let mut limits = Limits { west: LON_MAX, south: LAT_MAX, east: -LON_MAX, north: -LAT_MAX };
                for vertex in vertices {
                    limits.west = limits.west.min(vertex.lon);
                    limits.east = limits.east.max(vertex.lon);
                    limits.south = limits.south.min(vertex.lat);
                    limits.north = limits.north.max(vertex.lat);
                }
                return limits;
            }
        };
        let Point { lon, lat } = self.center;
        let lat_delta = height_m / EARTH_RADIUS_M / RADIANS;
        // A degree of longitude is shortest on the side towards the pole; that side decides.
        let polar = if lat < 0.0 { lat - lat_delta } else { lat + lat_delta };
        let lon_delta = width_m / EARTH_RADIUS_M / (polar * RADIANS).cos() / RADIANS;
        Limits {
            west: lon - lon_delta,
            south: lat - lat_delta,
            east: lon + lon_delta,
            north: lat + lat_delta,
        }
    }

    /// Distance from the centre that surely holds the whole shape.
    fn reach_m(&self, limits: &Limits) -> f64 {
        match &self.shape {
            Shape::Circle { radius_m } => *radius_m,
            Shape::Box { width_m, height_m } => {
                ((width_m / 2.0) * (width_m / 2.0) + (height_m / 2.0) * (height_m / 2.0)).sqrt()
            }
            Shape::Polygon(_) => [limits.west, limits.east]
                .into_iter()
                .flat_map(|lon| {
                    [limits.south, limits.north].map(|lat| distance_m(self.center, Point { lon, lat }))
                })
                .fold(0.0, f64::max),
        }
    }

    /// At most nine ranges of scores (from the first to just before the second) that hold every position inside, in
    /// the order in which the reference reports what it finds.
    pub fn score_ranges(&self) -> SmallVec<[(u64, u64); 9]> {
        let limits = self.limits();
        // A polygon around a pole has its centre beyond the projection.
        let center = Point { lon: self.center.lon, lat: self.center.lat.clamp(-LAT_MAX, LAT_MAX) };
        let mut cell = Cell::of(center, steps_for(self.reach_m(&limits), center.lat));
        let covers = cell.step(0, 1).lat().1 >= limits.north
            && cell.step(0, -1).lat().0 <= limits.south
            && cell.step(1, 0).lon().1 >= limits.east
            && cell.step(-1, 0).lon().0 <= limits.west;
        if !covers && cell.steps > 1 {
            cell = Cell::of(center, cell.steps - 1);
        }
        // Directions in which the middle cell reaches beyond the limits need no neighbours.
        let trims = cell.steps >= 2;
        let (lat, lon) = (cell.lat(), cell.lon());
        let skip = |dx: i32, dy: i32| {
            trims
                && (dy < 0 && lat.0 < limits.south
                    || dy > 0 && lat.1 > limits.north
                    || dx < 0 && lon.0 < limits.west
                    || dx > 0 && lon.1 > limits.east)
        };
        const AROUND: [(i32, i32); 8] =
            [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];
        let mut ranges = SmallVec::new();
        ranges.push(cell.scores());
        let mut last = None;
        for (dx, dy) in AROUND {
            let next = cell.step(dx, dy);
            // On a map of few cells, neighbours on both sides are the same one.
            if !skip(dx, dy) && last != Some(next) {
                ranges.push(next.scores());
                last = Some(next);
            }
        }
        ranges
    }
}

/// How many edges a ray from `point` to the east meets.
fn crossings(vertices: &[Point], point: Point) -> usize {
    let mut count = 0;
    let Some(mut b) = vertices.last() else { return 0 };
    for a in vertices {
        if (a.lat > point.lat) != (b.lat > point.lat)
            && point.lon < (b.lon - a.lon) * (point.lat - a.lat) / (b.lat - a.lat) + a.lon
        {
            count += 1;
        }
        b = a;
    }
    count
}

/// How fine the cells may be for nine of them to hold everything within `reach_m`.
fn steps_for(reach_m: f64, lat: f64) -> u32 {
    if reach_m <= 0.0 {
        return STEPS_MAX;
    }
    let (mut reach_m, mut steps) = (reach_m, 1);
    while reach_m < MERCATOR_MAX_M {
        reach_m *= 2.0;
        steps += 1;
    }
    // Two less, so that the range is inside in most cases; cells get narrower towards the poles.
    let polar = i32::from(lat.abs() > 66.0) + i32::from(lat.abs() > 80.0);
    (steps - 2 - polar).clamp(1, STEPS_MAX as i32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use kara_base::rng::Rng;

    const PALERMO: Point = Point { lon: 13.361389, lat: 38.115556 };
    const CATANIA: Point = Point { lon: 15.087269, lat: 37.502669 };

    #[test]
    fn reference_values() {
        assert_eq!(encode(PALERMO), 3479099956230698);
        assert_eq!(encode(CATANIA), 3479447370796909);
        assert_eq!(&geohash_string(encode(PALERMO)), b"sqc8b49rny0");
        assert_eq!(&geohash_string(encode(CATANIA)), b"sqdtr74hyu0");
        let distance = distance_m(decode(encode(PALERMO)), decode(encode(CATANIA)));
        assert_eq!(format!("{distance:.4}"), "166274.1516");
        assert_eq!(decode(encode(CATANIA)), Point { lon: 15.087267458438873, lat: 37.50266842333162 });
    }

    #[test]
    fn limits_of_the_map_decode_to_valid_positions() {
        for lon in [-180.0, 180.0] {
            for lat in [-LAT_MAX, LAT_MAX] {
                assert!(decode(encode(Point { lon, lat })).is_valid());
            }
        }
        assert!(decode(u64::MAX).is_valid());
        assert!(!Point { lon: f64::NAN, lat: 0.0 }.is_valid());
    }

    fn somewhere(rng: &mut Rng) -> Point {
        Point { lon: rng.unit_f64() * 360.0 - 180.0, lat: rng.unit_f64() * 2.0 * LAT_MAX - LAT_MAX }
    }

    #[test]
    fn ranges_hold_what_is_inside() {
        let mut rng = Rng::new(5);
        let mut inside = 0;
        for _ in 0..3000 {
            let center = Point { lon: rng.unit_f64() * 300.0 - 150.0, lat: rng.unit_f64() * 120.0 - 60.0 };
            let size = 10f64.powf(rng.unit_f64() * 4.0 + 1.5);
            let area = match rng.below(3) {
                0 => Area::circle(center, size),
                1 => Area::rectangle(center, size, size * 2.0),
                _ => {
                    let degrees = size / 111_000.0;
                    let corner = |x: f64, y: f64| Point {
                        lon: center.lon + x * degrees,
                        lat: center.lat + y * degrees,
                    };
                    Area::polygon(vec![corner(-1.0, -0.5), corner(1.0, -1.0), corner(0.2, 0.9)])
                }
            };
            let ranges = area.score_ranges();
            for _ in 0..20 {
                let near = |rng: &mut Rng| (rng.unit_f64() - 0.5) * 2.5 * size / 111_000.0;
                let point = Point { lon: center.lon + near(&mut rng), lat: center.lat + near(&mut rng) };
                let hash = encode(point);
                if area.distance_if_inside(point).is_some() {
                    inside += 1;
                    assert!(ranges.iter().any(|r| (r.0..r.1).contains(&hash)), "{area:?} {point:?}");
                }
            }
        }
        assert!(inside > 10_000, "{inside}");
    }

    #[test]
    fn ranges_never_overlap_and_any_area_is_accepted() {
        let mut rng = Rng::new(6);
        for _ in 0..3000 {
            let reach = [0.0, 1e-3, 1e3, 1e6, 3e7, f64::MAX][rng.below(6) as usize];
            let center = somewhere(&mut rng);
            let mut ranges = Area::circle(center, reach).score_ranges();
            ranges.sort();
            assert!(!ranges.is_empty() && ranges.len() <= 9);
            assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{center:?} {reach}");
        }
        let around_the_pole = (0..8).map(|i| Point { lon: f64::from(i) * 45.0 - 180.0, lat: 85.0 }).collect();
        assert!(!Area::polygon(around_the_pole).score_ranges().is_empty());
        assert!(Area::polygon(Vec::new()).distance_if_inside(PALERMO).is_none());
    }
}
