/** Files of the model hub, by the hub's own library. HF_ENDPOINT names another hub, HF_TOKEN signs in. */
import { UserError } from "../errors.ts"
import type { OnProgress } from "./progress.ts"
import { download } from "./resume.ts"

const PUBLIC_HUB = "https://huggingface.co"
/** A hub that does not answer, or stops in the middle, is given up after this long. */
const ANSWER_MS = 8_000
const STALL_MS = 30_000

export interface HubFile {
  repo: string
  path: string
  /** Branch, tag or commit. */
  revision: string
}

/** `owner/repo/path/file.gguf[@revision]`, as after `hf:`. */
export function parseHubFile(text: string): HubFile {
  const match = /^([\w.-]+\/[\w.-]+)\/([^@]+\.gguf)(?:@([\w./-]+))?$/i.exec(text)
  if (!match || text.split("/").includes("..")) {
    throw new UserError(
      `not a model address: hf:${text}; use hf:owner/repository/file.gguf, optionally @revision`,
      {
        code: "bad_model_address",
      },
    )
  }
  return { repo: match[1]!, path: match[2]!, revision: match[3] ?? "main" }
}

/** Downloads to `target`, whole or not at all, and goes on where an earlier try broke off. The sum is checked: the one given, else
 * the hub's own. */
export async function downloadFromHub(
  file: HubFile,
  target: string,
  options: { onProgress?: OnProgress | undefined; env?: NodeJS.ProcessEnv; sha256?: string } = {},
): Promise<void> {
  const env = options.env ?? process.env
  // Takes 9 MiB: only of a server that downloads.
  const { downloadFile, fileDownloadInfo } = await import("@huggingface/hub")
  const hubUrl = (env.HF_ENDPOINT || PUBLIC_HUB).replace(/\/+$/, "")
  const token = env.HF_TOKEN
  const request = {
    repo: file.repo,
    path: file.path,
    revision: file.revision,
    hubUrl,
    ...(token?.startsWith("hf_") ? { accessToken: token } : {}),
  }
  const where = `${file.repo}/${file.path}@${file.revision}`
  const downloadInfo = await fileDownloadInfo({ ...request, fetch: impatientFetch }).catch((error) => {
    throw hubError(where, hubUrl, error)
  })
  if (!downloadInfo) {
    throw new UserError(`the model hub has no ${where}; check the file name and the revision`, {
      code: "model_not_on_hub",
    })
  }
  const expected = options.sha256 ?? sumOf(downloadInfo.etag)
  async function* from(byte: number): AsyncIterable<Uint8Array> {
    const blob = await downloadFile({ ...request, downloadInfo: downloadInfo! })
    if (!blob) throw new Error("the file is gone")
    const rest = byte === 0 ? blob : blob.slice(byte)
    const reader = (rest.stream() as ReadableStream<Uint8Array>).getReader()
    for (let read = await withinStall(reader.read()); !read.done; read = await withinStall(reader.read()))
      yield read.value
  }
  const onBytes = (doneBytes: number) => {
    const message = `downloading ${file.path}`
    options.onProgress?.({ stage: "download", message, doneBytes, totalBytes: downloadInfo.size })
  }
  const check = (sum: string) => {
    if (expected !== null) checkSum(sum, expected, where)
  }
  const { size: sizeBytes, etag } = downloadInfo
  await download({ target, sizeBytes, etag, from, onBytes, check }).catch((error: unknown) => {
    throw hubError(where, hubUrl, error)
  })
}

/** The hub's etag of a large file is its sum; of a small one it is something else. */
function sumOf(etag: string): string | null {
  return /^(?:W\/)?"?([0-9a-f]{64})"?$/i.exec(etag)?.[1]?.toLowerCase() ?? null
}

/** Throws unless the sums are equal. */
export function checkSum(actual: string, expected: string, what: string): void {
  if (actual === expected) return
  throw new UserError(
    `checksum mismatch: ${what} has sha256 ${actual}, expected ${expected}; it was changed or damaged, try again`,
    { code: "checksum_mismatch" },
  )
}

const impatientFetch: typeof fetch = (input, init) =>
  fetch(input, { ...init, signal: AbortSignal.timeout(ANSWER_MS) })

async function withinStall<T>(reading: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const stalled = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no data for ${STALL_MS / 1000} s`)), STALL_MS)
  })
  return Promise.race([reading, stalled]).finally(() => clearTimeout(timer))
}

function hubError(where: string, hubUrl: string, error: unknown): Error {
  if (error instanceof UserError) return error
  const { message, cause, statusCode } = error as Error & { statusCode?: number }
  const detail = statusCode ? `HTTP ${statusCode}` : ((cause as Error | undefined)?.message ?? message)
  const remedy =
    statusCode === 401 || statusCode === 403 || statusCode === 404
      ? "check the name, or set HF_TOKEN for a private repository"
      : "check the network, or set HF_ENDPOINT to a mirror"
  return new UserError(`cannot fetch ${where} from ${hubUrl} (${detail}); ${remedy}`, {
    code: "hub_unreachable",
    cause: error,
  })
}
