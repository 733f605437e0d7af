-- A purchase that a payment provider has in hand: it is paid when `tx` is there, failed when `failed_at` is, and pending until then.

alter table credit_purchases
    add column session text,            -- the provider's name for it
    add column checkout_url text,       -- where the user pays
    add column failed_at timestamptz;
