/** Writes GGUF version 3 files: typed metadata, then tensors streamed in chunks, so that a model larger
 * than memory can be written. */
import type { FileHandle } from "node:fs/promises"

const ALIGNMENT = 32

/** GGUF metadata value types, by their number in the format. */
const TYPE = { u16: 2, u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const

export type GgufValue =
  | { u16: number }
  | { u32: number }
  | { i32: number }
  | { f32: number }
  | { bool: boolean }
  | { string: string }
  | { strings: readonly string[] }
  | { i32s: readonly number[] }

/** ggml tensor types: number in the format, weights per block, bytes per block. */
export const WEIGHTS = {
  f32: { id: 0, block: 1, bytes: 4, fileType: 0 },
  f16: { id: 1, block: 1, bytes: 2, fileType: 1 },
  q4_0: { id: 2, block: 32, bytes: 18, fileType: 2 },
  q8_0: { id: 8, block: 32, bytes: 34, fileType: 7 },
} as const
export type WeightType = keyof typeof WEIGHTS

export interface GgufTensor {
  name: string
  /** Fastest-varying dimension first, as ggml counts. */
  shape: readonly number[]
  type: WeightType
  /** The tensor's bytes, in chunks. */
  data(): Iterable<Uint8Array>
}

/** Bytes of a tensor in the file, without padding. */
export function tensorBytes(tensor: Pick<GgufTensor, "shape" | "type">): number {
  const { block, bytes } = WEIGHTS[tensor.type]
  const [row, ...rest] = tensor.shape
  if (row === undefined || row % block !== 0) {
    throw new Error(`rows of ${row} weights are no multiple of the ${tensor.type} block of ${block}`)
  }
  return (row / block) * bytes * rest.reduce((a, b) => a * b, 1)
}

export async function writeGguf(
  file: FileHandle,
  metadata: Readonly<Record<string, GgufValue>>,
  tensors: readonly GgufTensor[],
): Promise<void> {
  const header = new ByteWriter()
  header.raw(Buffer.from("GGUF"))
  header.u32(3)
  header.u64(tensors.length)
  header.u64(Object.keys(metadata).length)
  for (const [key, value] of Object.entries(metadata)) {
    header.string(key)
    header.value(value)
  }
  let offset = 0
  for (const tensor of tensors) {
    header.string(tensor.name)
    header.u32(tensor.shape.length)
    for (const size of tensor.shape) header.u64(size)
    header.u32(WEIGHTS[tensor.type].id)
    header.u64(offset)
    offset += tensorBytes(tensor) + padding(tensorBytes(tensor))
  }
  header.raw(Buffer.alloc(padding(header.length)))
  await file.write(header.bytes())
  for (const tensor of tensors) {
    let written = 0
    for (const chunk of tensor.data()) {
      await file.write(chunk)
      written += chunk.byteLength
    }
    if (written !== tensorBytes(tensor)) {
      throw new Error(`tensor ${tensor.name} gave ${written} bytes, not ${tensorBytes(tensor)}`)
    }
    if (padding(written) > 0) await file.write(Buffer.alloc(padding(written)))
  }
}

function padding(bytes: number): number {
  return (ALIGNMENT - (bytes % ALIGNMENT)) % ALIGNMENT
}

class ByteWriter {
  readonly #parts: Buffer[] = []
  length = 0

  raw(bytes: Buffer): void {
    this.#parts.push(bytes)
    this.length += bytes.length
  }

  u32(value: number): void {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(value)
    this.raw(bytes)
  }

  u64(value: number): void {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(BigInt(value))
    this.raw(bytes)
  }

  string(value: string): void {
    const bytes = Buffer.from(value, "utf8")
    this.u64(bytes.length)
    this.raw(bytes)
  }

  value(value: GgufValue): void {
    if ("u16" in value) {
      this.u32(TYPE.u16)
      this.raw(Buffer.from(Uint16Array.of(value.u16).buffer))
    } else if ("i32" in value) {
      this.u32(TYPE.i32)
      this.raw(Buffer.from(Int32Array.of(value.i32).buffer))
    } else if ("u32" in value) {
      this.u32(TYPE.u32)
      this.u32(value.u32)
    } else if ("f32" in value) {
      this.u32(TYPE.f32)
      this.raw(Buffer.from(Float32Array.of(value.f32).buffer))
    } else if ("bool" in value) {
      this.u32(TYPE.bool)
      this.raw(Buffer.of(value.bool ? 1 : 0))
    } else if ("string" in value) {
      this.u32(TYPE.string)
      this.string(value.string)
    } else if ("strings" in value) {
      this.#array(TYPE.string, value.strings.length)
      for (const item of value.strings) this.string(item)
    } else {
      this.#array(TYPE.i32, value.i32s.length)
      this.raw(Buffer.from(Int32Array.from(value.i32s).buffer))
    }
  }

  bytes(): Buffer {
    return Buffer.concat(this.#parts)
  }

  #array(type: number, length: number): void {
    this.u32(TYPE.array)
    this.u32(type)
    this.u64(length)
  }
}
