/** llama.cpp's C interface through koffi: struct layouts and functions of exactly one release, checked when
 * loaded. Nothing else in the code base knows these. */
import koffi from "koffi"
import { UserError } from "../../errors.ts"
import { type LibraryFiles, LLAMA_VERSION } from "./files.ts"

/** An address in native memory. */
export type Pointer = bigint & { readonly __native: "pointer" }

/** Async calls run llama.cpp on a stack of koffi's own: regular expressions and graphs need room there. */
const ASYNC_STACK_BYTES = 8 << 20

const BATCH = koffi.struct({
  n_tokens: "int32",
  token: "void *",
  embd: "void *",
  pos: "void *",
  n_seq_id: "void *",
  seq_id: "void *",
  logits: "void *",
})
const MODEL_PARAMS = koffi.struct({
  devices: "void *",
  tensor_buft_overrides: "void *",
  n_gpu_layers: "int32",
  split_mode: "int32",
  load_mode: "int32",
  lazy_mode: "int32",
  main_gpu: "int32",
  tensor_split: "void *",
  progress_callback: "void *",
  progress_callback_user_data: "void *",
  kv_overrides: "void *",
  vocab_only: "bool",
  check_tensors: "bool",
  use_extra_bufts: "bool",
  no_host: "bool",
  no_alloc: "bool",
  load_mtp: "bool",
})
const CONTEXT_PARAMS = koffi.struct({
  n_ctx: "uint32",
  n_batch: "uint32",
  n_ubatch: "uint32",
  n_seq_max: "uint32",
  n_rs_seq: "uint32",
  n_outputs_max: "uint32",
  n_outputs_max_per_seq: "uint32",
  n_threads: "int32",
  n_threads_batch: "int32",
  ctx_type: "int32",
  rope_scaling_type: "int32",
  pooling_type: "int32",
  attention_type: "int32",
  flash_attn_type: "int32",
  rope_freq_base: "float",
  rope_freq_scale: "float",
  yarn_ext_factor: "float",
  yarn_attn_factor: "float",
  yarn_beta_fast: "float",
  yarn_beta_slow: "float",
  yarn_orig_ctx: "uint32",
  defrag_thold: "float",
  cb_eval: "void *",
  cb_eval_user_data: "void *",
  type_k: "int32",
  type_v: "int32",
  abort_callback: "void *",
  abort_callback_data: "void *",
  embeddings: "bool",
  offload_kqv: "bool",
  no_perf: "bool",
  op_offload: "bool",
  swa_full: "bool",
  kv_unified: "bool",
  samplers: "void *",
  n_samplers: "size_t",
  ctx_other: "void *",
})
const CHAIN_PARAMS = koffi.struct({ no_perf: "bool" })

/** Values that llama.cpp gives its parameters: in other fields, the layout above would be another release's. */
const DEFAULT_MODEL_PARAMS = {
  n_gpu_layers: -1,
  split_mode: 1,
  load_mode: -1,
  lazy_mode: 1,
  use_extra_bufts: true,
}
const DEFAULT_CONTEXT_PARAMS = {
  n_ctx: 512,
  n_batch: 2048,
  n_ubatch: 512,
  n_seq_max: 1,
  n_outputs_max_per_seq: 1,
  rope_scaling_type: -1,
  flash_attn_type: -1,
  yarn_beta_slow: -1,
  defrag_thold: -1,
  type_k: 1,
  type_v: 1,
  offload_kqv: true,
  no_perf: true,
  swa_full: true,
  kv_unified: false,
  n_samplers: 0,
}

export interface BatchStruct {
  n_tokens: number
  token: Pointer
  embd: null
  pos: Pointer
  n_seq_id: Pointer
  seq_id: Pointer
  logits: Pointer
}

export type Native = ReturnType<typeof bind>

const loaded = new Map<string, Native>()

/** Loads the libraries once per process, and refuses any other release of them. */
export function loadNative(files: LibraryFiles): Native {
  const already = loaded.get(files.folder)
  if (already) return already
  if (loaded.size > 0) throw new UserError("this process already uses another llama.cpp library")
  koffi.config({ async_stack_size: ASYNC_STACK_BYTES, sync_stack_size: ASYNC_STACK_BYTES })
  let native: Native
  try {
    koffi.load(files.ggmlBase, { global: true })
    const ggml = koffi.load(files.ggml, { global: true })
    const llama = koffi.load(files.llama, { global: true })
    const version = llama.func("llama_version", "str", [])() as string
    // Builds outside llama.cpp's own release pipeline call themselves -dev.
    if (version.replace(/-dev$/, "") !== LLAMA_VERSION) {
      throw new UserError(
        `${files.llama} is llama.cpp ${version}, but ${LLAMA_VERSION} is needed; run npm install`,
      )
    }
    native = bind(llama)
    checkLayout(native)
    native.setLog(null)
    ggml.func("ggml_backend_load_all_from_path", "void", ["str"])(files.folder)
    llama.func("llama_backend_init", "void", [])()
  } catch (error) {
    if (error instanceof UserError) throw error
    throw new UserError(`cannot load the llama.cpp library ${files.llama} (${(error as Error).message})`, {
      code: "library_unusable",
      cause: error,
    })
  }
  loaded.set(files.folder, native)
  return native
}

function checkLayout(native: Native): void {
  const differs = (actual: Record<string, unknown>, expected: Record<string, unknown>) =>
    Object.keys(expected).find((key) => actual[key] !== expected[key])
  const field =
    differs(native.modelDefaults(), DEFAULT_MODEL_PARAMS) ??
    differs(native.contextDefaults(), DEFAULT_CONTEXT_PARAMS)
  if (field) {
    throw new UserError(
      `this llama.cpp library has another struct layout (${field}); run npm install to get ${LLAMA_VERSION}`,
      { code: "library_unusable" },
    )
  }
}

/** Every C function in use, with TypeScript types. */
function bind(lib: ReturnType<typeof koffi.load>) {
  type Fn<A extends unknown[], R> = (...args: A) => R
  const sync = <A extends unknown[], R>(name: string, result: koffiType, args: koffiType[]): Fn<A, R> =>
    lib.func(name, result, args)
  /** On a thread of koffi's, so that the event loop goes on. */
  const threaded = <A extends unknown[], R>(name: string, result: koffiType, args: koffiType[]) => {
    const call = lib.func(name, result, args)
    return (...given: A) =>
      new Promise<R>((resolve, reject) => {
        call.async(...given, (error: Error | null, value: R) => (error ? reject(error) : resolve(value)))
      })
  }
  const P = "void *"
  const encodeArgs = [P, P, "int32", P, "int32", "bool", "bool"]
  type EncodeArgs = [Pointer, Uint8Array, number, Int32Array, number, boolean, boolean]
  return {
    modelDefaults: sync<[], Record<string, unknown>>("llama_model_default_params", MODEL_PARAMS, []),
    contextDefaults: sync<[], Record<string, unknown>>("llama_context_default_params", CONTEXT_PARAMS, []),
    loadModel: threaded<[string, object], Pointer | null>("llama_model_load_from_file", P, [
      "str",
      MODEL_PARAMS,
    ]),
    freeModel: sync<[Pointer], void>("llama_model_free", "void", [P]),
    newContext: threaded<[Pointer, object], Pointer | null>("llama_init_from_model", P, [P, CONTEXT_PARAMS]),
    freeContext: sync<[Pointer], void>("llama_free", "void", [P]),
    supportsGpu: sync<[], boolean>("llama_supports_gpu_offload", "bool", []),

    vocab: sync<[Pointer], Pointer>("llama_model_get_vocab", P, [P]),
    size: sync<[Pointer], bigint | number>("llama_model_size", "uint64", [P]),
    parameters: sync<[Pointer], number | bigint>("llama_model_n_params", "uint64", [P]),
    trainedContext: sync<[Pointer], number>("llama_model_n_ctx_train", "int32", [P]),
    layers: sync<[Pointer], number>("llama_model_n_layer", "int32", [P]),
    width: sync<[Pointer], number>("llama_model_n_embd", "int32", [P]),
    heads: sync<[Pointer], number>("llama_model_n_head", "int32", [P]),
    kvHeads: sync<[Pointer], number>("llama_model_n_head_kv", "int32", [P]),
    hasEncoder: sync<[Pointer], boolean>("llama_model_has_encoder", "bool", [P]),
    hasDecoder: sync<[Pointer], boolean>("llama_model_has_decoder", "bool", [P]),
    isRecurrent: sync<[Pointer], boolean>("llama_model_is_recurrent", "bool", [P]),
    isHybrid: sync<[Pointer], boolean>("llama_model_is_hybrid", "bool", [P]),
    chatTemplate: sync<[Pointer, null], string | null>("llama_model_chat_template", "str", [P, "str"]),
    metadata: sync<[Pointer, string, Uint8Array, number], number>("llama_model_meta_val_str", "int32", [
      P,
      "str",
      P,
      "size_t",
    ]),

    vocabSize: sync<[Pointer], number>("llama_vocab_n_tokens", "int32", [P]),
    bos: sync<[Pointer], number>("llama_vocab_bos", "int32", [P]),
    eos: sync<[Pointer], number>("llama_vocab_eos", "int32", [P]),
    isEnd: sync<[Pointer, number], boolean>("llama_vocab_is_eog", "bool", [P, "int32"]),
    tokenAttributes: sync<[Pointer, number], number>("llama_vocab_get_attr", "int32", [P, "int32"]),
    tokenText: sync<[Pointer, number], string>("llama_vocab_get_text", "str", [P, "int32"]),
    piece: sync<[Pointer, number, Uint8Array, number, number, boolean], number>(
      "llama_token_to_piece",
      "int32",
      [P, "int32", P, "int32", "int32", "bool"],
    ),
    tokenize: sync<EncodeArgs, number>("llama_tokenize", "int32", encodeArgs),
    tokenizeThreaded: threaded<EncodeArgs, number>("llama_tokenize", "int32", encodeArgs),

    memory: sync<[Pointer], Pointer>("llama_get_memory", P, [P]),
    removeKv: sync<[Pointer, number, number, number], boolean>("llama_memory_seq_rm", "bool", [
      P,
      "int32",
      "int32",
      "int32",
    ]),
    copyKv: sync<[Pointer, number, number, number, number], void>("llama_memory_seq_cp", "void", [
      P,
      "int32",
      "int32",
      "int32",
      "int32",
    ]),
    decode: threaded<[Pointer, BatchStruct], number>("llama_decode", "int32", [P, BATCH]),
    synchronize: threaded<[Pointer], void>("llama_synchronize", "void", [P]),
    logits: sync<[Pointer], Pointer>("llama_get_logits", P, [P]),
    /** From the next decode on every token of a batch yields its hidden state. */
    setEmbeddings: sync<[Pointer, boolean], void>("llama_set_embeddings", "void", [P, "bool"]),
    embeddings: sync<[Pointer], Pointer>("llama_get_embeddings", P, [P]),

    newChain: sync<[{ no_perf: boolean }], Pointer>("llama_sampler_chain_init", P, [CHAIN_PARAMS]),
    addToChain: sync<[Pointer, Pointer], void>("llama_sampler_chain_add", "void", [P, P]),
    freeSampler: sync<[Pointer], void>("llama_sampler_free", "void", [P]),
    cloneSampler: sync<[Pointer], Pointer>("llama_sampler_clone", P, [P]),
    acceptToken: sync<[Pointer, number], void>("llama_sampler_accept", "void", [P, "int32"]),
    applySampler: sync<[Pointer, Pointer], void>("llama_sampler_apply", "void", [P, P]),
    sample: threaded<[Pointer, Pointer, number], number>("llama_sampler_sample", "int32", [P, P, "int32"]),
    greedy: sync<[], Pointer>("llama_sampler_init_greedy", P, []),
    dist: sync<[number], Pointer>("llama_sampler_init_dist", P, ["uint32"]),
    topK: sync<[number], Pointer>("llama_sampler_init_top_k", P, ["int32"]),
    topP: sync<[number, number], Pointer>("llama_sampler_init_top_p", P, ["float", "size_t"]),
    minP: sync<[number, number], Pointer>("llama_sampler_init_min_p", P, ["float", "size_t"]),
    temperature: sync<[number], Pointer>("llama_sampler_init_temp", P, ["float"]),
    penalties: sync<[number, number, number, number, number], Pointer>("llama_sampler_init_penalties", P, [
      "int32",
      "int32",
      "float",
      "float",
      "float",
    ]),
    setLog: logSetter(lib),
  }
}

type koffiType = NonNullable<Parameters<typeof koffi.sizeof>[0]>

/** Gives llama.cpp's log lines to one listener, or to none. */
function logSetter(lib: ReturnType<typeof koffi.load>) {
  const set = lib.func("llama_log_set", "void", ["void *", "void *"])
  const callback = koffi.pointer(koffi.proto("void", ["int", "str", "void *"]))
  // llama.cpp's own silence: any C function that ignores its arguments does. A JavaScript function would
  // have to be called on the event loop for every line.
  const silent = lib.symbol("llama_max_devices")
  let registered: bigint | null = null
  return (listener: ((level: number, text: string) => void) | null) => {
    const previous = registered
    registered = listener ? koffi.register(listener, callback) : null
    set(registered ?? silent, null)
    if (previous) koffi.unregister(previous)
  }
}

/** Native memory that lives as long as the process needs it, seen as bytes. */
export function allocate(bytes: number): { pointer: Pointer; bytes: ArrayBuffer; free(): void } {
  const pointer = koffi.alloc("uint8", bytes)
  return {
    pointer: koffi.address(pointer) as Pointer,
    bytes: koffi.view(pointer, bytes),
    free: () => koffi.free(pointer),
  }
}

/** A `llama_token_data_array` of one token: whatever chooses from it chooses that one. */
export function soleCandidate(): { pointer: Pointer; free(): void } {
  // llama_token_data: id, logit, p; of 4 bytes each. The array: its address, size, choice, and whether it is sorted.
  const token = allocate(12)
  const array = allocate(32)
  new Uint8Array(token.bytes).fill(0)
  new BigUint64Array(array.bytes).set([token.pointer, 1n, 0n, 0n])
  return {
    pointer: array.pointer,
    free: () => {
      array.free()
      token.free()
    },
  }
}

/** Floats at an address, without a copy. */
export function floatsAt(pointer: Pointer, count: number): Float32Array {
  return new Float32Array(koffi.view(pointer, count * 4))
}
