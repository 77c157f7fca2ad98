/** Bytes of random weight matrices in ggml's types: every weight drawn by itself, or, for models of billions,
 * one drawn pattern laid end to end. */
import { Random } from "../random.ts"
import { tensorBytes, WEIGHTS, type WeightType } from "./gguf-writer.ts"

const CHUNK_BYTES = 1 << 20
/** Prime, so that no two rows of a matrix begin at the same place of the pattern. */
const PATTERN_WEIGHTS = { f32: 524_287, f16: 524_287, q8_0: 65_521, q4_0: 65_521 } as const
/** Standard deviation of the whole numbers −127 … 127 and −7 … 7. */
const Q8_SIGMA = 73.3
const Q4_SIGMA = 4.32

/** A matrix with weights of standard deviation `sigma`; the seed says which. */
export function* randomWeights(
  shape: readonly [number, number],
  type: WeightType,
  sigma: number,
  seed: number,
): Iterable<Uint8Array> {
  const random = new Random(seed)
  const rowBytes = tensorBytes({ shape: [shape[0]], type })
  const rowsPerChunk = Math.max(1, Math.floor(CHUNK_BYTES / rowBytes))
  for (let row = 0; row < shape[1]; row += rowsPerChunk) {
    const rows = Math.min(rowsPerChunk, shape[1] - row)
    yield draw((rows * shape[0]) / WEIGHTS[type].block, type, sigma, random)
  }
}

/** As `randomWeights`, a hundred times faster: the seed says where in one pattern the matrix begins. */
export function* patternWeights(
  shape: readonly [number, number],
  type: WeightType,
  sigma: number,
  seed: number,
): Iterable<Uint8Array> {
  const blocks = PATTERN_WEIGHTS[type]
  const pattern = draw(blocks, type, sigma, new Random(1))
  let at = new Random(seed).below(blocks) * WEIGHTS[type].bytes
  for (let left = tensorBytes({ shape, type }); left > 0; ) {
    const chunk = pattern.subarray(at, Math.min(at + left, pattern.length))
    yield chunk
    left -= chunk.length
    at = 0
  }
}

function draw(blocks: number, type: WeightType, sigma: number, random: Random): Uint8Array {
  if (type === "q8_0") return randomQ8(blocks, sigma, random)
  if (type === "q4_0") return randomQ4(blocks, sigma, random)
  const floats = Float32Array.from({ length: blocks }, () => random.normal() * sigma)
  return new Uint8Array(type === "f32" ? floats.buffer : Uint16Array.from(floats, toF16).buffer)
}

/** Uniform bytes in −127 … 127, one f16 scale per 32. */
function randomQ8(blocks: number, sigma: number, random: Random): Uint8Array {
  const out = new Uint8Array(blocks * WEIGHTS.q8_0.bytes)
  const scale = toF16(sigma / Q8_SIGMA)
  for (let at = 0; at < out.length; at += WEIGHTS.q8_0.bytes) {
    out[at] = scale & 255
    out[at + 1] = scale >> 8
    for (let i = 2; i < WEIGHTS.q8_0.bytes; i++) out[at + i] = (random.below(255) - 127) & 255
  }
  return out
}

/** Uniform nibbles 1 … 15 (8 stands for zero), one f16 scale per 32. */
function randomQ4(blocks: number, sigma: number, random: Random): Uint8Array {
  const out = new Uint8Array(blocks * WEIGHTS.q4_0.bytes)
  const scale = toF16(sigma / Q4_SIGMA)
  for (let at = 0; at < out.length; at += WEIGHTS.q4_0.bytes) {
    out[at] = scale & 255
    out[at + 1] = scale >> 8
    for (let i = 2; i < WEIGHTS.q4_0.bytes; i++)
      out[at + i] = (1 + random.below(15)) | ((1 + random.below(15)) << 4)
  }
  return out
}

const floatBits = new Uint32Array(1)
const floatValue = new Float32Array(floatBits.buffer)

/** IEEE half-precision bits, rounded to nearest even. */
export function toF16(value: number): number {
  floatValue[0] = value
  const bits = floatBits[0]!
  const sign = (bits >>> 16) & 0x8000
  const exponent = ((bits >>> 23) & 0xff) - 112
  const mantissa = bits & 0x7fffff
  if (exponent >= 31) return sign | 0x7c00
  if (exponent > 0) {
    const half = (exponent << 10) | (mantissa >>> 13)
    return sign | (half + roundUp(mantissa, 13, half))
  }
  if (exponent < -10) return sign
  const shift = 14 - exponent
  const half = (mantissa | 0x800000) >>> shift
  return sign | (half + roundUp(mantissa | 0x800000, shift, half))
}

function roundUp(mantissa: number, shift: number, half: number): number {
  const rest = mantissa & ((1 << shift) - 1)
  const middle = 1 << (shift - 1)
  return rest > middle || (rest === middle && (half & 1) === 1) ? 1 : 0
}
