/** The user's cache folder, and files that appear in it whole or not at all. */
import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises"
import { dirname, join } from "node:path"
import envPaths from "env-paths"
import { UserError } from "../errors.ts"

/** SLOS_SERVE_CACHE, or the platform's cache folder for this user. */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  return env.SLOS_SERVE_CACHE || envPaths("slos-serve", { suffix: "" }).cache
}

/** Makes a folder and its parents. */
export async function makeFolder(path: string): Promise<void> {
  await orUnwritable(join(path, "x"), () => mkdir(path, { recursive: true }))
}

export function modelFolder(cacheDir: string): string {
  return join(cacheDir, "models")
}

/** Runs `write` on a temporary file beside `path`, then renames it. Nothing is left when it throws. */
export async function writeAtomically(
  path: string,
  write: (file: FileHandle) => Promise<void>,
): Promise<void> {
  const temporary = `${path}.${process.pid}.${Math.random().toString(36).slice(2, 8)}.part`
  const file = await orUnwritable(path, async () => {
    await mkdir(dirname(path), { recursive: true })
    return open(temporary, "wx")
  })
  try {
    await write(file)
    await file.close()
    await orUnwritable(path, () => rename(temporary, path))
  } catch (error) {
    await file.close().catch(() => {})
    await rm(temporary, { force: true })
    throw diskProblem(path, error)
  }
}

/** What it throws is said as what to do about the cache folder. */
export async function orUnwritable<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action()
  } catch (error) {
    throw unwritable(path, error)
  }
}

function unwritable(path: string, cause: unknown): UserError {
  const detail = (cause as NodeJS.ErrnoException).code ?? String(cause)
  return new UserError(
    `cannot write the cache folder ${dirname(path)} (${detail}); free space or name another in SLOS_SERVE_CACHE`,
    { code: "cache_unwritable", cause },
  )
}

/** A fault that the disk has is said as what to do about it; others are as they were. */
export function diskProblem(path: string, error: unknown): unknown {
  return fullDisk(error) ? unwritable(path, error) : error
}

function fullDisk(error: unknown): boolean {
  return ["ENOSPC", "EDQUOT", "EROFS", "EIO"].includes((error as NodeJS.ErrnoException)?.code ?? "")
}
