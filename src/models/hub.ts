/** Files of the model hub, by the hub's own library. HF_ENDPOINT names another hub, HF_TOKEN signs in. */
import { createHash } from "node:crypto"
import { UserError } from "../errors.ts"
import { writeAtomically } from "./cache.ts"
import type { OnProgress } from "./progress.ts"

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

/** Downloads to `target`, whole or not at all; answers the sha256. */
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
  await writeAtomically(target, async (out) => {
    const hash = createHash("sha256")
    let doneBytes = 0
    try {
      const blob = await downloadFile({ ...request, downloadInfo })
      if (!blob) throw new Error("the file is gone")
      const reader = (blob.stream() as ReadableStream<Uint8Array>).getReader()
      for (;;) {
        const { done, value } = await withinStall(reader.read())
        if (done) break
        hash.update(value)
        await out.write(value)
        doneBytes += value.byteLength
        options.onProgress?.({
          stage: "download",
          message: `downloading ${file.path}`,
          doneBytes,
          totalBytes: downloadInfo.size,
        })
      }
    } catch (error) {
      throw hubError(where, hubUrl, error)
    }
    if (doneBytes !== downloadInfo.size) {
      throw new UserError(
        `the download of ${where} broke off at ${doneBytes} of ${downloadInfo.size} bytes; try again`,
        { code: "download_incomplete" },
      )
    }
    if (options.sha256) checkSum(hash.digest("hex"), options.sha256, where)
  })
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
