-- An upload that is one request lives as long as that request: what a coordinator was reading when it died is over when it starts again.

alter table uploads add column streamed_by text;    -- peer id of the coordinator that reads the request; null: an upload in steps
create index uploads_streamed on uploads (streamed_by) where state = 'open' and streamed_by is not null;
