-- What uploads under way will cost stands here, off the balances of their users, until they are complete or dropped.

insert into ledger_account (kind, owner) values ('system', 'reserved');
