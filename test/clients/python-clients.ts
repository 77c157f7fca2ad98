/** Python's clients, tried by `npm run test:clients` (try.ts) where there is a Python: their rows in docs/clients.md. */
import type { Shown } from "./client.ts"

export const PYTHON_CLIENTS: readonly Shown[] = []
