/** Generated models: the llama architecture with random weights, written in seconds. Their answers are noise,
 * their cost is real: for tests, benches and a first run without a download. */
import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import { readFile, stat } from "node:fs/promises"
import { join } from "node:path"
import { CHATML_TEMPLATE } from "../engine/chatml.ts"
import { bpeVocab, VOCAB_IDS } from "./bpe-vocab.ts"
import { writeAtomically } from "./cache.ts"
import { type GgufTensor, type GgufValue, WEIGHTS, type WeightType, writeGguf } from "./gguf-writer.ts"
import { patternWeights, randomWeights } from "./random-weights.ts"

/** Raised whenever the same spec gives other bytes: names of cached files contain it. */
const FORMAT = 1
/** End of the name of the file beside a model that has its sum. */
const SUM = ".sha256"
const WHOLE_BYTES = 2 ** 28
const END_BYTES = 2 ** 24
/** What layers from `quietFrom` on add to the residual stream, as a share of what others add. */
const QUIET_GAIN = 0.25

export interface TinySpec {
  layers: number
  /** Width of the residual stream. */
  width: number
  feedForward: number
  heads: number
  kvHeads: number
  vocab: number
  contextTokens: number
  weights: WeightType
  seed: number
  /** Layers from this one on add little, so that a model of the layers before it (same seed, width and
   * vocabulary) often agrees: a draft model. */
  quietFrom?: number
  /** One drawn pattern repeated: for models of billions, which are timed and not judged. */
  pattern?: boolean
}

const EIGHT_BILLION = {
  layers: 32,
  width: 4096,
  feedForward: 14_336,
  heads: 32,
  kvHeads: 8,
  vocab: 32_000,
  weights: "q8_0",
  quietFrom: 2,
  pattern: true,
} as const
const TINY_PAIR = { width: 192, feedForward: 512, heads: 6, kvHeads: 2, vocab: 2048, quietFrom: 2 } as const

/** `tiny` for the server, `tiny-bench` for load statistics (about 10M), `tiny-f32` for token identity,
 * `tiny-target` and `tiny-draft` for speculation. `random-8b` and `random-1b` have the shapes of Llama 3.1 8B
 * and 3.2 1B, for timing on GPUs; `random-draft` is the first layers of `random-8b`. */
export const TINY_PRESETS = {
  tiny: spec({ layers: 8, width: 192, feedForward: 512, heads: 6, kvHeads: 2, vocab: 2048 }),
  "tiny-bench": spec({
    layers: 8,
    width: 320,
    feedForward: 896,
    heads: 10,
    kvHeads: 2,
    vocab: 2048,
    weights: "q8_0",
  }),
  "tiny-f32": spec({
    layers: 3,
    width: 128,
    feedForward: 256,
    heads: 4,
    kvHeads: 2,
    vocab: 512,
    weights: "f32",
  }),
  "tiny-target": spec({ ...TINY_PAIR, layers: 10 }),
  "tiny-draft": spec({ ...TINY_PAIR, layers: 2 }),
  "random-8b": spec(EIGHT_BILLION),
  "random-1b": spec({ ...EIGHT_BILLION, layers: 16, width: 2048, feedForward: 8192 }),
  "random-draft": spec({ ...EIGHT_BILLION, layers: 2 }),
} as const satisfies Record<string, TinySpec>
export type TinyPreset = keyof typeof TINY_PRESETS

function spec(given: Partial<TinySpec>): TinySpec {
  return {
    layers: 8,
    width: 192,
    feedForward: 512,
    heads: 6,
    kvHeads: 2,
    vocab: 2048,
    contextTokens: 8192,
    weights: "f16",
    seed: 7,
    ...given,
  }
}

export function isTinyPreset(name: string): name is TinyPreset {
  return Object.hasOwn(TINY_PRESETS, name)
}

/** The file of a generated model in `folder`, written if it is not there, or no longer as it was written. */
export async function tinyModel(given: TinySpec, folder: string, name: string): Promise<string> {
  const digest = createHash("sha256")
    .update(JSON.stringify([FORMAT, given]))
    .digest("hex")
    .slice(0, 10)
  const path = join(folder, `${name}-${digest}.gguf`)
  const noted = await readFile(`${path}${SUM}`, "utf8").catch(() => null)
  if (noted !== null && noted === (await sumOf(path).catch(() => null))) return path
  await writeAtomically(path, (file) => writeGguf(file, metadataOf(given, name), tensorsOf(given)))
  const sum = await sumOf(path)
  await writeAtomically(`${path}${SUM}`, async (file) => {
    await file.write(sum)
  })
  return path
}

/** Size and sum of a file; of a large one, of its first and last part: reading gigabytes would delay every start. */
async function sumOf(path: string): Promise<string> {
  const { size } = await stat(path)
  const pieces = size > WHOLE_BYTES ? [0, size - END_BYTES] : [0]
  const hash = createHash("sha256")
  for (const start of pieces) {
    const end = pieces.length > 1 ? start + END_BYTES - 1 : size
    for await (const chunk of createReadStream(path, { start, end, highWaterMark: 1 << 20 }))
      hash.update(chunk as Buffer)
  }
  return `${size} ${hash.digest("hex")}\n`
}

/** What the file of a generated model has in it. */
export function tinyContent(
  given: TinySpec,
  name: string,
): { metadata: Record<string, GgufValue>; tensors: GgufTensor[] } {
  return { metadata: metadataOf(given, name), tensors: tensorsOf(given) }
}

export function parametersOf(given: TinySpec): number {
  return tensorsOf(given).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
}

function metadataOf(given: TinySpec, name: string): Record<string, GgufValue> {
  const vocab = bpeVocab(given.vocab)
  return {
    "general.architecture": { string: "llama" },
    "general.name": { string: name },
    "general.description": { string: "random weights: answers are noise" },
    "general.tags": { strings: ["random-weights"] },
    "general.file_type": { u32: WEIGHTS[given.weights].fileType },
    "llama.context_length": { u32: given.contextTokens },
    "llama.embedding_length": { u32: given.width },
    "llama.block_count": { u32: given.layers },
    "llama.feed_forward_length": { u32: given.feedForward },
    "llama.attention.head_count": { u32: given.heads },
    "llama.attention.head_count_kv": { u32: given.kvHeads },
    "llama.attention.layer_norm_rms_epsilon": { f32: 1e-5 },
    "llama.rope.dimension_count": { u32: given.width / given.heads },
    "llama.rope.freq_base": { f32: 10_000 },
    "llama.vocab_size": { u32: given.vocab },
    "tokenizer.ggml.model": { string: "gpt2" },
    "tokenizer.ggml.pre": { string: "gpt-2" },
    "tokenizer.ggml.tokens": { strings: vocab.tokens },
    "tokenizer.ggml.token_type": { i32s: vocab.types },
    "tokenizer.ggml.merges": { strings: vocab.merges },
    "tokenizer.ggml.bos_token_id": { u32: VOCAB_IDS.bos },
    "tokenizer.ggml.eos_token_id": { u32: VOCAB_IDS.eos },
    "tokenizer.ggml.unknown_token_id": { u32: VOCAB_IDS.unknown },
    "tokenizer.ggml.padding_token_id": { u32: VOCAB_IDS.eos },
    "tokenizer.ggml.add_bos_token": { bool: false },
    "tokenizer.chat_template": { string: CHATML_TEMPLATE },
  }
}

/** Standard deviations keep activations of order one through the layers and the logits a few units apart. */
function tensorsOf(given: TinySpec): GgufTensor[] {
  const { width, feedForward, vocab, heads, kvHeads, weights } = given
  const kvWidth = (width / heads) * kvHeads
  const tensors: GgufTensor[] = []
  const norm = (name: string) => tensors.push(ones(name, width))
  const matrix = (name: string, rowLength: number, rows: number, gain: number) => {
    const seed = given.seed * 1000 + tensors.length
    const shape = [rowLength, rows] as const
    const sigma = gain / Math.sqrt(rowLength)
    const draw = given.pattern ? patternWeights : randomWeights
    tensors.push({ name, shape, type: weights, data: () => draw(shape, weights, sigma, seed) })
  }
  matrix("token_embd.weight", width, vocab, Math.sqrt(width))
  norm("output_norm.weight")
  matrix("output.weight", width, vocab, 3)
  for (let layer = 0; layer < given.layers; layer++) {
    const block = `blk.${layer}`
    const added = layer >= (given.quietFrom ?? given.layers) ? 2 * QUIET_GAIN : 2
    norm(`${block}.attn_norm.weight`)
    matrix(`${block}.attn_q.weight`, width, width, 1.5)
    matrix(`${block}.attn_k.weight`, width, kvWidth, 1.5)
    matrix(`${block}.attn_v.weight`, width, kvWidth, 1)
    matrix(`${block}.attn_output.weight`, width, width, added)
    norm(`${block}.ffn_norm.weight`)
    matrix(`${block}.ffn_gate.weight`, width, feedForward, 1)
    matrix(`${block}.ffn_up.weight`, width, feedForward, 1)
    matrix(`${block}.ffn_down.weight`, feedForward, width, added)
  }
  return tensors
}

function ones(name: string, length: number): GgufTensor {
  return {
    name,
    shape: [length],
    type: "f32",
    data: () => [new Uint8Array(new Float32Array(length).fill(1).buffer)],
  }
}
