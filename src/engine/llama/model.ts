/** Opens a model file and a context of llama.cpp, with every way that can go wrong told to the user. */
import { createHash } from "node:crypto"
import { open } from "node:fs/promises"
import { totalmem } from "node:os"
import { basename } from "node:path"
import type { EngineLimits } from "../../core/protocol.ts"
import { UserError } from "../../errors.ts"
import type { ModelInfo, Pooling } from "../port.ts"
import { findLibrary, LLAMA_VERSION } from "./files.ts"
import { loadNative, type Native, type Pointer } from "./native.ts"
import type { LlamaOptions } from "./options.ts"
import { chooseSizes, DEFAULT_CONTEXT_TOKENS, type Sizes } from "./sizes.ts"
import { LlamaTokenizer } from "./tokenizer.ts"

export interface Loaded {
  native: Native
  model: Pointer
  vocab: Pointer
  context: Pointer
  tokenizer: LlamaTokenizer
  info: ModelInfo
  limits: EngineLimits
  /** Why its sizes are what they are, in words; empty where they were given. */
  chosen: string
  /** Of the whole KV. */
  kvBytes: number
  gpu: boolean
  /** Most tokens of a request verified in one step, the sure one included; 1 without speculation. */
  maxSpeculation: number
  /** Most rows of logits of one step. */
  maxOutputs: number
}

/** docs/design.md, Engine and KV. */
const BLOCK_TOKENS = 16
const CPU_FLASH_CHUNK_TOKENS = 64
const CPU_PLAIN_CHUNK_TOKENS = 16
const MOST_SEQUENCES = 256
/** Rows of logits of one pass of a prompt whose every token is judged: what more would save is less than their memory. */
export const SCORED_ROWS = 64
const DEFAULT_MAX_SPECULATION = 8
const ALL_LAYERS = -1
const KV_TYPES = {
  f32: { id: 0, bytes: 4 },
  f16: { id: 1, bytes: 2 },
  q8_0: { id: 8, bytes: 34 / 32 },
} as const
/** Log levels of ggml. */
const WARNING = 3
const ERROR = 4
const CONTINUED = 5

export async function openModel(options: LlamaOptions): Promise<Loaded> {
  checkOptions(options)
  const native = loadNative(findLibrary(options.library ?? "auto"))
  const log = new LogTail(options.onLog)
  native.setLog((level, text) => log.push(level, text))
  try {
    const gpu = native.supportsGpu() && options.gpuLayers !== 0
    const model = await native.loadModel(options.modelPath, {
      ...native.modelDefaults(),
      n_gpu_layers: gpu ? (options.gpuLayers ?? ALL_LAYERS) : 0,
    })
    if (!model) {
      throw new UserError(
        `llama.cpp cannot load ${options.modelPath}${log.reason()}; it may be damaged or too new: download it again`,
        { code: "bad_model_file" },
      )
    }
    try {
      checkModel(native, model, options)
      const sizes = sizesOf(native, model, options, gpu)
      checkOptions({ ...options, ...sizes })
      return await openContext(native, model, { ...options, ...sizes }, gpu, log)
    } catch (error) {
      native.freeModel(model)
      throw error
    }
  } finally {
    if (!options.onLog) native.setLog(null)
  }
}

async function openContext(
  native: Native,
  model: Pointer,
  options: LlamaOptions & Sizes,
  gpu: boolean,
  log: LogTail,
): Promise<Loaded> {
  const unifiedKv = options.kvUnified ?? gpu
  const { maxSequences, contextTokens, maxBatchTokens } = options
  const kvTokens = (unifiedKv ? options.kvTokens : undefined) ?? maxSequences * contextTokens
  // A sequence of a unified pool is a name and no memory: as many again for what ended requests leave as a cache.
  const cachedSequences = unifiedKv
    ? Math.min(maxSequences, MOST_SEQUENCES - maxSequences, maxBatchTokens - maxSequences)
    : 0
  const kvType = KV_TYPES[options.kvType ?? "f16"]
  const kvBytes = kvTokens * kvBytesPerToken(native, model, kvType.bytes)
  if (!gpu && kvBytes > memoryBytes())
    throw outOfMemory(kvBytes, `this machine has ${gibibytes(memoryBytes())}`)
  // On a CPU plain attention is safer. Narrow heads (10M model, width 32): 4x faster for 29 decodes at 500 tokens
  // of context, 15x for a chunk of 16 at 1,500. SmolLM2-135M: equal at 500, 2.7x for a chunk of 16 at 1,000.
  // Long chunks differ by less than the noise. A quantized V cache needs flash attention.
  const flash = options.flashAttention ?? (gpu || options.kvType === "q8_0" ? undefined : false)
  const maxSpeculation = (options.speculate ?? "off") === "off" ? 1 : mostSpeculation(options)
  const maxOutputs = Math.min(maxSequences * maxSpeculation, maxBatchTokens)
  const context = await native.newContext(model, {
    ...native.contextDefaults(),
    n_ctx: kvTokens,
    n_batch: maxBatchTokens,
    n_ubatch: maxBatchTokens,
    n_seq_max: maxSequences + cachedSequences,
    // llama.cpp plans for a row of every sequence, those that are only cached included.
    n_outputs_max: Math.max(
      maxOutputs,
      maxSequences + cachedSequences,
      Math.min(SCORED_ROWS, maxBatchTokens),
    ),
    n_threads: options.threads,
    n_threads_batch: options.threads,
    // Hidden states are pooled here (embedder.ts): a prompt comes in pieces.
    pooling_type: 0,
    kv_unified: unifiedKv,
    flash_attn_type: flash === undefined ? -1 : flash ? 1 : 0,
    type_k: kvType.id,
    type_v: kvType.id,
  })
  if (!context) throw outOfMemory(kvBytes, `llama.cpp could not create its context${log.reason()}`)
  const vocab = native.vocab(model)
  // Everything else that changes step times and is not in the limits.
  const layers = gpu ? `-gpu${options.gpuLayers ?? "all"}` : ""
  const variant = `-${LLAMA_VERSION}-${options.kvType ?? "f16"}${flash === false ? "" : "-flash"}${layers}`
  return {
    native,
    model,
    vocab,
    context,
    gpu,
    chosen: options.why,
    kvBytes,
    maxSpeculation,
    maxOutputs,
    tokenizer: new LlamaTokenizer(native, vocab),
    info: await modelInfo(native, model, vocab, options, variant),
    limits: {
      kvTokens,
      blockTokens: BLOCK_TOKENS,
      maxSequences,
      cachedSequences,
      maxBatchTokens,
      contextTokens,
      minChunkTokens: minChunkTokens(gpu, flash !== false, maxBatchTokens),
      unifiedKv,
    },
  }
}

/** Of this machine, or of the container that it is in. */
function memoryBytes(): number {
  return Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY)
}

function sizesOf(native: Native, model: Pointer, options: LlamaOptions, gpu: boolean): Sizes {
  const { contextTokens, maxSequences, maxBatchTokens, processes = 1 } = options
  const trained = native.trainedContext(model)
  const pool = options.kvTokens ?? Number.POSITIVE_INFINITY
  const sizes = chooseSizes(
    {
      contextTokens: contextTokens ?? (pool < trained ? Math.min(pool, DEFAULT_CONTEXT_TOKENS) : undefined),
      maxSequences,
    },
    {
      ...{ trainedTokens: trained, weightBytes: Number(native.size(model)), processes, gpu },
      kvBytesPerToken: kvBytesPerToken(native, model, KV_TYPES[options.kvType ?? "f16"].bytes),
      memoryBytes: memoryBytes() / processes,
    },
  )
  if (maxSequences !== undefined) return sizes
  return { ...sizes, maxSequences: Math.min(sizes.maxSequences, maxBatchTokens) }
}

async function modelInfo(
  native: Native,
  model: Pointer,
  vocab: Pointer,
  options: LlamaOptions,
  variant: string,
): Promise<ModelInfo> {
  const textOf = (token: number) => (token < 0 ? "" : native.tokenText(vocab, token))
  const description = metadataOf(native, model, "general.description")
  return {
    name: options.name ?? basename(options.modelPath).replace(/\.gguf$/i, ""),
    fingerprint: (await fingerprintOf(options.modelPath)) + variant,
    chatTemplate: native.chatTemplate(model, null),
    bosText: textOf(native.bos(vocab)),
    eosText: textOf(native.eos(vocab)),
    trainedContextTokens: native.trainedContext(model),
    vocabSize: native.vocabSize(vocab),
    parameters: Number(native.parameters(model)),
    random: description.startsWith("random weights"),
    pooling: poolingOf(native, model),
  }
}

/** By llama.cpp's numbers. Models that generate say nothing, as a rule: theirs is the last, which has seen all. */
const POOLINGS: Readonly<Record<string, Pooling>> = { "": "last", "0": "last", "1": "mean", "3": "last" }

function poolingOf(native: Native, model: Pointer): Pooling | null {
  const architecture = metadataOf(native, model, "general.architecture")
  return POOLINGS[metadataOf(native, model, `${architecture}.pooling_type`)] ?? null
}

/** "" where the model does not say. */
function metadataOf(native: Native, model: Pointer, key: string): string {
  const room = new Uint8Array(256)
  const length = native.metadata(model, key, room, room.length)
  return length > 0 ? new TextDecoder().decode(room.subarray(0, Math.min(length, 255))) : ""
}

/** Size, head and tail of the file: enough to tell models apart without reading gigabytes. */
async function fingerprintOf(path: string): Promise<string> {
  const file = await open(path)
  try {
    const { size } = await file.stat()
    const hash = createHash("sha256").update(String(size))
    for (const at of [0, Math.max(0, size - (1 << 20))]) {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(1 << 20), 0, 1 << 20, at)
      hash.update(buffer.subarray(0, bytesRead))
    }
    return hash.digest("hex").slice(0, 16)
  } finally {
    await file.close()
  }
}

function mostSpeculation(options: LlamaOptions): number {
  return options.maxSpeculation ?? DEFAULT_MAX_SPECULATION
}

function minChunkTokens(gpu: boolean, flash: boolean, maxBatchTokens: number): number {
  if (gpu) return 1
  return Math.min(flash ? CPU_FLASH_CHUNK_TOKENS : CPU_PLAIN_CHUNK_TOKENS, maxBatchTokens)
}

function kvBytesPerToken(native: Native, model: Pointer, elementBytes: number): number {
  const headWidth = native.width(model) / Math.max(1, native.heads(model))
  return 2 * native.layers(model) * native.kvHeads(model) * headWidth * elementBytes
}

function checkOptions(options: LlamaOptions): void {
  for (const name of ["threads", "maxSequences", "contextTokens", "maxBatchTokens"] as const) {
    if (options[name] === undefined) continue
    if (!Number.isSafeInteger(options[name]) || options[name] < 1) {
      throw new UserError(`${name} must be a whole number above 0, not ${options[name]}`)
    }
  }
  if (options.kvType === "q8_0" && options.flashAttention === false)
    throw new UserError(
      "KV of type q8_0 needs flash attention; choose another --kv-type, or leave flash attention on",
    )
  const most = mostSpeculation(options)
  if (!Number.isSafeInteger(most) || most < 1)
    throw new UserError(`maxSpeculation must be a whole number above 0, not ${most}`)
  const { maxSequences = 1 } = options
  if (maxSequences > MOST_SEQUENCES) {
    throw new UserError(`llama.cpp holds at most ${MOST_SEQUENCES} sequences, not ${maxSequences}`)
  }
  if (options.maxBatchTokens < maxSequences) {
    throw new UserError(
      `a batch of ${options.maxBatchTokens} tokens cannot serve ${maxSequences} sequences; ` +
        "raise maxBatchTokens or lower maxSequences",
    )
  }
}

function checkModel(native: Native, model: Pointer, options: LlamaOptions): void {
  const unfit = (why: string) => new UserError(`${options.modelPath} ${why}`, { code: "unfit_model" })
  if (native.hasEncoder(model) || !native.hasDecoder(model))
    throw unfit("is no plain text generator; choose another")
  if (native.isRecurrent(model) || native.isHybrid(model)) {
    throw unfit("keeps recurrent state, which cannot share prefixes or be cut; choose a transformer")
  }
  const trained = native.trainedContext(model)
  if (options.contextTokens !== undefined && options.contextTokens > trained) {
    throw unfit(
      `was trained on contexts of ${trained} tokens, not ${options.contextTokens}; lower the context`,
    )
  }
}

function outOfMemory(kvBytes: number, why: string): UserError {
  return new UserError(
    `not enough memory for a KV cache of ${gibibytes(kvBytes)}: ${why}; ` +
      "lower the number of sequences, the context, or the batch tokens, or use a smaller KV type",
    { code: "out_of_memory" },
  )
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`
}

/** Passes log lines on, and keeps the first error for messages: those after it only say that nothing can be done. */
class LogTail {
  readonly #onLog: ((line: string) => void) | undefined
  #line = ""
  #level = 0
  #problem = ""
  #problemLevel = 0

  constructor(onLog: ((line: string) => void) | undefined) {
    this.#onLog = onLog
  }

  push(level: number, text: string): void {
    if (level !== CONTINUED) this.#level = level
    this.#line += text
    if (!this.#line.endsWith("\n")) return
    const line = this.#line.trimEnd()
    this.#line = ""
    if (this.#level >= WARNING && this.#level <= ERROR && this.#level > this.#problemLevel) {
      this.#problem = line
      this.#problemLevel = this.#level
    }
    this.#onLog?.(line)
  }

  /** " (what llama.cpp complained about)", or "". */
  reason(): string {
    return this.#problem === "" ? "" : ` (${this.#problem.replace(/^\w+: /, "")})`
  }
}
