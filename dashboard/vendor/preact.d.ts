export { h, render, Fragment } from "preact";
export { useState, useEffect, useRef, useMemo, useCallback, useId } from "preact/hooks";
export { signal, computed, effect, batch } from "@preact/signals";
export { html } from "htm/preact";
