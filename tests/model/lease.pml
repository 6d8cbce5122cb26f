/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Leases between donors and borrowers (backend/donor/leases.md is the specification), for spin. tests/model/check builds it in several
 * sizes, and runs each plain and with planted bugs.
 *
 * What is modelled:
 *   – a request, or a data connection with what was sent on it, that its sender has given up may still arrive, at any time later, beside and
 *     after those of newer connections, or never. An answer counts only on the connection of its request.
 *   – a data connection's opening may be sent together with its first write. A write arrives in two steps (its first bytes, its last bytes), and
 *     everything else may happen between them: it is not a message but something that is going on in the donor's memory.
 *   – a donor's worker may die between any two steps: connections and half-written blocks are what it leaves. What it has in its table stays.
 *     A donor's arena may be lost: all tables begin anew, their counters as well.
 *   – a borrower's worker may die or reconnect (the same: what is not in the map is forgotten), its host may boot again, its VM may end.
 *   – the donor may take any lease for silent at any time (there are no clocks).
 *
 * Ghosts: the content of each block says whose it is (VM, place, version), so that whatever goes wrong is seen in what a reader would get.
 *
 * Properties are numbered P1 … P7 as in leases.md.
 */

/* ---- sizes ---- */

#ifndef NB
#define NB 1 /* borrowers: hosts with one VM at a time */
#endif
#ifndef ND
#define ND 1 /* donors */
#endif
#ifndef NP
#define NP 1 /* places: blocks of an export */
#endif
#ifndef BLOCKS
#define BLOCKS 1 /* of an arena */
#endif
#ifndef SLOTS
#define SLOTS 2 /* leases that a donor's table has room for */
#endif
#ifndef VERSIONS
#define VERSIONS 2 /* of a place */
#endif
#ifndef NUMBERS
#define NUMBERS 6 /* leases and epochs that a donor gives out, at most */
#endif
/* How often each of these happens at most, in all. */
#ifndef GIVE_UPS
#define GIVE_UPS 0 /* a borrower gives up its connections, or its worker dies */
#endif
#ifndef REPEATS
#define REPEATS 0 /* only its lease connection breaks, and it goes on over another one, in the same session */
#endif
#ifndef DEATHS
#define DEATHS 0 /* of a donor's worker */
#endif
#ifndef LOSSES
#define LOSSES 0 /* of an arena */
#endif
#ifndef REBOOTS
#define REBOOTS 0 /* of a borrower's host */
#endif
#ifndef ENDS
#define ENDS 0 /* of a VM */
#endif
#ifndef FORGETS
#define FORGETS 0 /* operator: forget LEASE */
#endif
#ifndef REVOKES
#define REVOKES 0
#endif
#ifndef CHANGES
#define CHANGES 2 /* requests that change a level, for each borrower and donor */
#endif
/* LIAR: the last borrower keeps to no rule. Its own copies are not looked at; those of others are.
 * COPIES: places are copied to all donors that are not squeezed, and to storage, and stay somewhere at each moment. Else each copy is looked
 * at alone, and may be trimmed at any time. */

/* ---- planted bugs: chosen when the checker starts, no part of the state ---- */

c_decl { int planted; };
#define NO_FENCE (c_expr { planted == 1 })
#define LATE_FENCE (c_expr { planted == 2 })
#define SAME_SESSION (c_expr { planted == 3 })
#define EPOCH_KEPT (c_expr { planted == 4 })
#define EPOCH_AGAIN (c_expr { planted == 5 })
#define NO_INCARNATION (c_expr { planted == 6 })
#define NO_ZEROING (c_expr { planted == 7 })
#define POINTER_KEPT (c_expr { planted == 8 })
#define TIMEOUT_FREES (c_expr { planted == 9 })
#define ATTACH_IS_EVIDENCE (c_expr { planted == 10 })
#define LEASE_NOT_NAMED (c_expr { planted == 11 })
#define SEQ_IGNORED (c_expr { planted == 12 })
#define RELEASE_BELOW_USE (c_expr { planted == 13 })
#define SLOT_BEFORE_BLOCKS (c_expr { planted == 14 })
#define REVOKE_FORGOTTEN (c_expr { planted == 15 })
#define GRANT_IN_REVOKE (c_expr { planted == 16 })
#define STORAGE_NOT_RESERVED (c_expr { planted == 17 })
#define TRIM_FIRST (c_expr { planted == 18 })
#define LOST_STAYS_VALID (c_expr { planted == 19 })
#define VALID_TOO_EARLY (c_expr { planted == 20 })
#define REQUEST_EPOCH_IGNORED (c_expr { planted == 21 })
#define PROMISE_TWICE (c_expr { planted == 22 })
#define ANYBODYS (c_expr { planted == 23 })
#define END_FORGOTTEN (c_expr { planted == 24 })
#define NO_INCARNATION_IN_NAME (c_expr { planted == 25 })
#define WRITES_OUTLIVE_WORKER (c_expr { planted == 26 })
#define EVIDENCE_WITHOUT_ORDER (c_expr { planted == 27 })
#define NO_WATERMARK (c_expr { planted == 28 })
/* No bugs, but situations that must come up: without them the model would say little. */
#define REACHED_EVIDENCE (c_expr { planted == 101 })
#define REACHED_WITHIN_A_WRITE (c_expr { planted == 102 })
#define REACHED_LATE_LEASE (c_expr { planted == 103 })
#define REACHED_NO_OTHER_BLOCK (c_expr { planted == 104 })
#define REACHED_DEATH_IN_END (c_expr { planted == 105 })
#define REACHED_NEXT_ARENA (c_expr { planted == 106 })
#define REACHED_LATE_WRITE (c_expr { planted == 107 })
#define REACHED_CARRIED_OUT (c_expr { planted == 108 })
#define REACHED(which, text) if :: which -> c_code { uerror ("reached: " text); } :: else fi

/* ---- state ---- */

#define ATTACH 1
#define GRANT 2
#define RELEASE 3
#define KEEP 4
#define END 5

#define OK 1
#define OLD_SESSION 2
#define OLD_EPOCH 3
#define OTHER_INCARNATION 4
#define UNKNOWN 5
#define NOT_YOURS 6
#define LIMIT 7

typedef Request {
  byte verb; /* 0: there is none */
  byte vm, boot, session, inc, lease, epoch, seq, level
};

typedef Answer {
  byte verdict; /* 0: there is none */
  byte inc, lease, epoch, level;
  bool revoke;
  byte revoke_level
};

#define NO_CONNECTION 0
#define OPENING 1 /* what it asks for has not reached the donor */
#define OPEN 2
#define CLOSED 3 /* by the donor */
#define ORPHAN 4 /* planted: its worker has died, and something goes on writing */
#define BROKEN(c) (c.state == CLOSED || c.state == ORPHAN)

#define NO_OP 0
#define SENT 1
#define BEGUN 2 /* some of its bytes are in the block */
#define ANSWERED 3
#define REFUSED 4

typedef Connection {
  byte state, lease, epoch, inc;
  byte op;
  bool trim;
  byte place, content;
  byte block /* BEGUN: the one that the first bytes went to */
};

#define ATTACHING 0
#define ATTACHED 1
#define DONE 2 /* the lease was ended, or the donor refuses */

/* One borrower and one donor: the borrower's side, and what is under way. LATE: what was given up and may still arrive. */
#define NOW 0
#define LATE 1
typedef Link {
  Request request[2];
  Answer answer;
  Connection data[2];
  byte inc, lease; /* in the map, which outlives the worker: 0, 0: none … */
  bool valid[NP];  /* … and which places have a copy there */
  bool clean[NP];  /* trimmed in this attachment: holds nothing, for certain */
  byte session;    /* (worker, attachment) */
  byte state, epoch, level, seq;
  byte asked;
  bool revoke;
  byte revoke_level;
  byte changes
};
Link k[NB * ND];

typedef Host {
  byte vm, boot;
  bool ended;
  byte version[NP];
  bool stored[NP]; /* there is a copy in storage, of this version */
  bool settled[NP] /* ghost: this version had a copy, so it may not be in the stage any more */
};
Host h[NB];

typedef Lease {
  byte id; /* 0: the slot is free */
  byte vm, boot, epoch, session, seq, level;
  bool revoke;
  byte revoke_level;
  bool ending, silent
};

#define FREE 0
#define DIRTY 1
#define USED(slot, place) (2 + (slot) * NP + (place))

#define ZEROES 0
#define TORN 255
#define CONTENT(vm, place, version) (1 + (version) + (VERSIONS + 1) * ((place) + NP * (vm)))

typedef Donor {
  byte inc;  /* of the arena, from 1 on */
  byte next; /* of lease ids and epochs */
  Lease lease[SLOTS];
  byte word[BLOCKS];
  byte content[BLOCKS];
  byte forgotten; /* ghost: the last lease that an operator has ended */
  bool squeezed   /* ghost: a revoke was ordered, and not carried out or taken back */
};
Donor n[ND];

int dead; /* ghost: VMs that are gone, a bit each */

byte give_ups = GIVE_UPS, repeats = REPEATS, deaths = DEATHS, losses = LOSSES, reboots = REBOOTS, ends = ENDS, forgets = FORGETS, revokes = REVOKES;

#define HOST(l) ((l) / ND)
#define DONOR(l) ((l) % ND)
#define LINK(b, d) ((b) * ND + (d))
#define VM_HOST(vm) (((vm) - 1) % NB)
#ifdef LIAR
#define HONEST(b) ((b) != NB - 1)
#define GIVES_UP(l) (!HONEST (HOST (l))) /* others are seen to in other sizes */
#else
#define HONEST(b) 1
#define GIVES_UP(l) true
#endif

/* Scratch of single steps. */
hidden byte i, j, x, y, s, found, block, sum, verdict;

#define MUST(what, text) if :: what :: else -> c_code { uerror (text); } fi

/* ---- steps of a donor ---- */

inline find_lease (D, ID) {
  found = SLOTS;
  for (i : 0 .. SLOTS - 1) {
    if
    :: n[D].lease[i].id == ID && ID != 0 && !n[D].lease[i].ending -> found = i
    :: else
    fi
  }
}

inline count_used (D, S) {
  sum = 0;
  for (i : 0 .. BLOCKS - 1) {
    if
    :: n[D].word[i] >= USED (S, 0) && n[D].word[i] <= USED (S, NP - 1) -> sum++
    :: else
    fi
  }
}

inline clear_data (CN) {
  CN.state = NO_CONNECTION; CN.lease = 0; CN.epoch = 0; CN.inc = 0; CN.op = NO_OP; CN.trim = false; CN.place = 0; CN.content = 0; CN.block = 0
}

/* The donor closes a connection: what is still under way on it never ends. */
inline close_data (CN, WHICH) {
  if
  :: CN.state == OPEN ->
     if
     :: CN.op == BEGUN -> REACHED (REACHED_WITHIN_A_WRITE, "closed within a write")
     :: else
     fi;
     clear_data (CN);
     CN.state = (WHICH == NOW -> CLOSED : NO_CONNECTION)
  :: else
  fi
}

#define FENCED(b, d, which) k[LINK (b, d)].data[which]
inline fence (D, ID, BELOW) {
  for (i : 0 .. 2 * NB - 1) {
    if
    :: FENCED (i / 2, D, i % 2).lease == ID && FENCED (i / 2, D, i % 2).epoch < BELOW && FENCED (i / 2, D, i % 2).inc == n[D].inc ->
       close_data (FENCED (i / 2, D, i % 2), i % 2)
    :: else
    fi
  }
}
inline clear_lease (L) {
  L.id = 0; L.vm = 0; L.boot = 0; L.epoch = 0; L.session = 0; L.seq = 0; L.level = 0; L.revoke = false; L.revoke_level = 0;
  L.ending = false; L.silent = false
}

/* From here on nothing is read or written through it; its blocks follow one by one (donor_ends). */
inline end_lease (D, S) {
  MUST (((dead >> n[D].lease[S].vm) & 1) || n[D].forgotten == n[D].lease[S].id, "P3: a lease ends without evidence or order");
  fence (D, n[D].lease[S].id, 255);
  n[D].lease[S].ending = true
}

/* This boot of that host was alive after `epoch` was given out: others that have leases from before it are gone. */
inline evidence (D, B, BOOT, EPOCH) {
  for (j : 0 .. SLOTS - 1) {
    if
    :: n[D].lease[j].id != 0 && !n[D].lease[j].ending && VM_HOST (n[D].lease[j].vm) == B && n[D].lease[j].boot != BOOT &&
       (n[D].lease[j].id < EPOCH || EVIDENCE_WITHOUT_ORDER) && n[D].lease[j].silent ->
       end_lease (D, j);
       REACHED (REACHED_EVIDENCE, "evidence")
    :: else
    fi
  }
}

/* found: the slot of a new lease. */
inline make_lease (D, RQ) {
  n[D].lease[found].id = n[D].next;
  n[D].lease[found].epoch = n[D].next;
  n[D].next++;
  n[D].lease[found].vm = RQ.vm;
  n[D].lease[found].boot = RQ.boot;
  n[D].lease[found].session = RQ.session
}

inline step_attach (D, RQ) {
  found = SLOTS;
  for (i : 0 .. SLOTS - 1) {
    if
    :: n[D].lease[i].id != 0 && n[D].lease[i].vm == RQ.vm && !n[D].lease[i].ending -> found = i
    :: else
    fi
  }
  if
  :: found == SLOTS && RQ.lease != 0 -> verdict = UNKNOWN
  :: found == SLOTS && RQ.lease == 0 ->
     for (i : 0 .. SLOTS - 1) {
       if
       :: n[D].lease[i].id == 0 && found == SLOTS -> found = i
       :: else
       fi
     }
     if
     :: found == SLOTS || n[D].next > NUMBERS -> verdict = LIMIT
     :: else ->
        if
        :: n[D].forgotten != 0 && RQ.session < k[LINK (VM_HOST (RQ.vm), D)].session -> REACHED (REACHED_LATE_LEASE, "a lease made anew by a late request")
        :: else
        fi;
        make_lease (D, RQ)
     fi
  :: found < SLOTS && RQ.lease != 0 && RQ.lease != n[D].lease[found].id -> verdict = UNKNOWN
  :: found < SLOTS && (RQ.lease == 0 || RQ.lease == n[D].lease[found].id) ->
     n[D].lease[found].silent = false;
     if
     :: RQ.session < n[D].lease[found].session -> verdict = OLD_SESSION
     :: RQ.session == n[D].lease[found].session
     :: RQ.session > n[D].lease[found].session ->
        if
        :: n[D].next > NUMBERS -> verdict = LIMIT
        :: else ->
           if
           :: EPOCH_KEPT
           :: else ->
              n[D].lease[found].epoch = n[D].next;
              n[D].next++
           fi;
           n[D].lease[found].session = RQ.session;
           n[D].lease[found].seq = 0;
           if
           :: NO_FENCE || LATE_FENCE
           :: else -> fence (D, n[D].lease[found].id, n[D].lease[found].epoch)
           fi
        fi
     fi
  fi;
  if
  :: ATTACH_IS_EVIDENCE && verdict == OK -> evidence (D, VM_HOST (RQ.vm), RQ.boot, 255)
  :: else
  fi
}

inline step_level (D, RQ) {
  count_used (D, found);
  y = sum; /* blocks with contents */
  sum = 0;
  for (i : 0 .. SLOTS - 1) {
    sum = sum + n[D].lease[i].level
  }
  if
  :: RQ.seq <= n[D].lease[found].seq && !SEQ_IGNORED /* done already, or overtaken */
  :: else ->
     n[D].lease[found].seq = RQ.seq;
     if
     :: RQ.verb == GRANT && RQ.level > n[D].lease[found].level && (!n[D].lease[found].revoke || GRANT_IN_REVOKE) ->
        if
        :: PROMISE_TWICE || sum - n[D].lease[found].level + RQ.level <= BLOCKS -> n[D].lease[found].level = RQ.level
        :: else -> n[D].lease[found].level = BLOCKS - (sum - n[D].lease[found].level)
        fi
     :: RQ.verb == RELEASE && RQ.level < n[D].lease[found].level ->
        if
        :: RQ.level >= y || RELEASE_BELOW_USE -> n[D].lease[found].level = RQ.level
        :: else -> n[D].lease[found].level = y
        fi;
        if
        :: n[D].lease[found].revoke && n[D].lease[found].level <= n[D].lease[found].revoke_level ->
           n[D].lease[found].revoke = false;
           REACHED (REACHED_CARRIED_OUT, "a revoke carried out");
           n[D].lease[found].revoke_level = 0
        :: else
        fi
     :: else
     fi
  fi
}

/* A request of borrower b; verdict, and found: the lease, if it is one's. */
inline donor_step (D, B, RQ) {
  verdict = OK;
  found = SLOTS;
  if
  :: RQ.inc != 0 && RQ.inc != n[D].inc && !NO_INCARNATION -> verdict = OTHER_INCARNATION
  :: else ->
     if
     :: RQ.verb == ATTACH -> step_attach (D, RQ)
     :: else ->
        find_lease (D, RQ.lease);
        if
        :: found == SLOTS -> verdict = UNKNOWN
        :: found < SLOTS && VM_HOST (n[D].lease[found].vm) != B && !ANYBODYS -> verdict = NOT_YOURS
        :: found < SLOTS && !(VM_HOST (n[D].lease[found].vm) != B && !ANYBODYS) && n[D].lease[found].epoch != RQ.epoch &&
           !REQUEST_EPOCH_IGNORED -> verdict = OLD_EPOCH
        :: else ->
           x = found;
           n[D].lease[found].silent = false;
           evidence (D, B, RQ.boot, RQ.epoch);
           found = x;
           if
           :: LATE_FENCE -> fence (D, n[D].lease[found].id, n[D].lease[found].epoch)
           :: else
           fi;
           if
           :: RQ.verb == END -> end_lease (D, found)
           :: RQ.verb == GRANT || RQ.verb == RELEASE -> step_level (D, RQ)
           :: RQ.verb == KEEP && RQ.seq > n[D].lease[found].seq -> n[D].lease[found].seq = RQ.seq /* what is still to come, comes too late */
           :: else
           fi
        fi
     fi
  fi
}

inline clear_request (RQ) {
  RQ.verb = 0; RQ.vm = 0; RQ.boot = 0; RQ.session = 0; RQ.inc = 0; RQ.lease = 0; RQ.epoch = 0; RQ.seq = 0; RQ.level = 0
}

inline clear_answer (AN) {
  AN.verdict = 0; AN.inc = 0; AN.lease = 0; AN.epoch = 0; AN.level = 0; AN.revoke = false; AN.revoke_level = 0
}

inline give_answer (D, AN) {
  AN.verdict = verdict;
  AN.inc = n[D].inc;
  if
  :: verdict == OK ->
     AN.lease = n[D].lease[found].id;
     AN.epoch = n[D].lease[found].epoch;
     AN.level = n[D].lease[found].level;
     AN.revoke = n[D].lease[found].revoke;
     AN.revoke_level = n[D].lease[found].revoke_level
  :: else
  fi
}

inline open_data (D, B, CN, WHICH) {
  find_lease (D, CN.lease);
  if
  :: found < SLOTS && (VM_HOST (n[D].lease[found].vm) == B || ANYBODYS) && n[D].lease[found].epoch == CN.epoch &&
     (n[D].inc == CN.inc || NO_INCARNATION_IN_NAME) -> CN.state = OPEN
  :: else ->
     clear_data (CN);
     CN.state = (WHICH == NOW -> CLOSED : NO_CONNECTION)
  fi
}

/* block: that of the place; BLOCKS: there is none. For writing, one is taken. */
inline find_block (D, S, P, WRITE) {
  block = BLOCKS;
  for (i : 0 .. BLOCKS - 1) {
    if
    :: n[D].word[i] == USED (S, P) -> block = i
    :: else
    fi
  }
  if
  :: WRITE && block == BLOCKS ->
     count_used (D, S);
     if
     :: sum < n[D].lease[S].level ->
        for (i : 0 .. BLOCKS - 1) {
          if
          :: n[D].word[i] == FREE && block == BLOCKS -> block = i
          :: else
          fi
        }
        for (i : 0 .. BLOCKS - 1) {
          if
          :: n[D].word[i] == DIRTY && block == BLOCKS ->
             block = i;
             REACHED (REACHED_NO_OTHER_BLOCK, "a block zeroed because there is no other");
             n[D].content[i] = (NO_ZEROING -> n[D].content[i] : ZEROES)
          :: else
          fi
        }
        MUST (block < BLOCKS, "P1: no block for what is promised");
        MUST (n[D].content[block] == ZEROES, "P2: what an earlier lease wrote comes back");
        n[D].word[block] = USED (S, P)
     :: else
     fi
  :: else
  fi
}

/* The first bytes of a write, or a TRIM. */
inline begin_op (D, B, CN) {
  find_lease (D, CN.lease);
  s = found;
  if
  :: s == SLOTS || (n[D].lease[s].epoch != CN.epoch && !NO_FENCE && !LATE_FENCE) -> CN.op = REFUSED
  :: else ->
     MUST (VM_HOST (n[D].lease[s].vm) == B, "P2: a write to another's lease");
     MUST (!HONEST (B) || n[D].lease[s].epoch == CN.epoch, "P2: a write of an old epoch");
     find_block (D, s, CN.place, !CN.trim);
     if
     :: block == BLOCKS -> CN.op = (CN.trim -> ANSWERED : REFUSED)
     :: block < BLOCKS && CN.trim ->
        n[D].word[block] = DIRTY;
        CN.op = ANSWERED
     :: block < BLOCKS && !CN.trim ->
        n[D].content[block] = TORN;
        CN.block = block;
        CN.op = BEGUN
     fi
  fi
}

/* The last bytes of a write. */
inline end_op (D, B, CN) {
  find_lease (D, CN.lease);
  s = found;
  if
  :: POINTER_KEPT || CN.state == ORPHAN ->
     block = CN.block;
     n[D].content[block] = CN.content;
     CN.op = ANSWERED
  :: else ->
     if
     :: s == SLOTS || (n[D].lease[s].epoch != CN.epoch && !NO_FENCE && !LATE_FENCE) -> CN.op = REFUSED
     :: else ->
        MUST (!HONEST (B) || n[D].lease[s].epoch == CN.epoch, "P2: a write of an old epoch");
        find_block (D, s, CN.place, true);
        if
        :: block == BLOCKS -> CN.op = REFUSED
        :: else ->
           if
           :: CN.content != CONTENT (h[B].vm, CN.place, h[B].version[CN.place]) -> REACHED (REACHED_LATE_WRITE, "a late write")
           :: else
           fi;
           n[D].content[block] = (n[D].content[block] == TORN -> CN.content : TORN); /* trimmed meanwhile: only the last bytes are there */
           CN.op = ANSWERED
        fi
     fi
  fi;
  CN.block = 0
}

/* ---- steps of a borrower ---- */

/* What it has asked for may arrive after what it asks for next. */
inline too_late (L) {
  k[L].request[LATE].verb = k[L].request[NOW].verb;
  k[L].request[LATE].vm = k[L].request[NOW].vm;
  k[L].request[LATE].boot = k[L].request[NOW].boot;
  k[L].request[LATE].session = k[L].request[NOW].session;
  k[L].request[LATE].inc = k[L].request[NOW].inc;
  k[L].request[LATE].lease = k[L].request[NOW].lease;
  k[L].request[LATE].epoch = k[L].request[NOW].epoch;
  k[L].request[LATE].seq = k[L].request[NOW].seq;
  k[L].request[LATE].level = k[L].request[NOW].level
}

/* All that the worker knows beyond the map is forgotten; what it has sent goes on its way. keep_late, keep_old: what was on its way before
 * arrives rather than this. */
inline give_up (L, KEEP_LATE, KEEP_OLD) {
  if
  :: k[L].request[NOW].verb != 0 && !KEEP_LATE -> too_late (L)
  :: else
  fi;
  clear_request (k[L].request[NOW]);
  clear_answer (k[L].answer);
  if
  :: (k[L].data[NOW].op == SENT || k[L].data[NOW].op == BEGUN) && !KEEP_OLD ->
     k[L].data[LATE].state = k[L].data[NOW].state;
     k[L].data[LATE].lease = k[L].data[NOW].lease;
     k[L].data[LATE].epoch = k[L].data[NOW].epoch;
     k[L].data[LATE].inc = k[L].data[NOW].inc;
     k[L].data[LATE].op = k[L].data[NOW].op;
     k[L].data[LATE].trim = k[L].data[NOW].trim;
     k[L].data[LATE].place = k[L].data[NOW].place;
     k[L].data[LATE].content = k[L].data[NOW].content;
     k[L].data[LATE].block = k[L].data[NOW].block
  :: else
  fi;
  clear_data (k[L].data[NOW]);
  k[L].asked = 0;
  k[L].epoch = 0;
  k[L].level = 0;
  k[L].seq = 0;
  for (y : 0 .. NP - 1) {
    k[L].clean[y] = false
  }
  k[L].revoke = false;
  k[L].revoke_level = 0;
  if
  :: k[L].state == ATTACHED -> k[L].state = ATTACHING
  :: else
  fi;
  if
  :: SAME_SESSION || !HONEST (HOST (L))
  :: else -> k[L].session++
  fi
}

inline ask (L, WHAT, LEVEL) {
  k[L].request[NOW].verb = WHAT;
  k[L].request[NOW].vm = h[HOST (L)].vm;
  k[L].request[NOW].boot = h[HOST (L)].boot;
  k[L].request[NOW].inc = k[L].inc;
  k[L].request[NOW].lease = k[L].lease;
  if
  :: WHAT == ATTACH ->
     k[L].request[NOW].session = k[L].session;
     if
     :: LEASE_NOT_NAMED -> k[L].request[NOW].lease = 0
     :: else
     fi
  :: else -> k[L].request[NOW].epoch = k[L].epoch
  fi;
  if
  :: WHAT == GRANT || WHAT == RELEASE ->
     k[L].seq++;
     k[L].request[NOW].seq = k[L].seq;
     k[L].request[NOW].level = LEVEL
  :: WHAT == KEEP && !NO_WATERMARK -> k[L].request[NOW].seq = k[L].seq
  :: else
  fi;
  k[L].asked = WHAT
}

/* Proven: the contents are gone. The map is told first, then a new lease is asked for. */
inline lost (L) {
  for (i : 0 .. NP - 1) {
    if
    :: LOST_STAYS_VALID
    :: else -> k[L].valid[i] = false
    fi
  }
  k[L].inc = 0;
  k[L].lease = 0;
  give_up (L, true, false)
}

#define ANOTHER(l) (k[l].lease != 0 && k[l].answer.lease != k[l].lease && !LEASE_NOT_NAMED)
inline take_answer (L) {
  x = k[L].asked;
  k[L].asked = 0;
  if
  :: k[L].answer.verdict == OK && x == END -> k[L].state = DONE
  :: k[L].answer.verdict == OK && x == ATTACH && ANOTHER (L) -> lost (L)
  :: k[L].answer.verdict == OK && x != END && !(x == ATTACH && ANOTHER (L)) ->
     if
     :: x == ATTACH ->
        k[L].inc = k[L].answer.inc;
        k[L].lease = k[L].answer.lease;
        k[L].epoch = k[L].answer.epoch;
        k[L].state = ATTACHED
     :: else
     fi;
     k[L].level = k[L].answer.level;
     k[L].revoke = k[L].answer.revoke;
     k[L].revoke_level = k[L].answer.revoke_level
  :: k[L].answer.verdict == UNKNOWN || k[L].answer.verdict == OTHER_INCARNATION ->
     if
     :: h[HOST (L)].ended -> k[L].state = DONE
     :: else -> lost (L)
     fi
  :: k[L].answer.verdict == LIMIT ->
#ifdef LIVENESS
     assert (false); /* there are to be enough numbers */
#endif
     k[L].state = DONE
  :: k[L].answer.verdict == OLD_SESSION || k[L].answer.verdict == NOT_YOURS || k[L].answer.verdict == OLD_EPOCH ->
     MUST (!HONEST (HOST (L)), "P6: refused, and nobody has come before");
     k[L].state = DONE
  fi;
  clear_answer (k[L].answer)
}

inline send_op (L, P, TRIM) {
  k[L].data[NOW].op = SENT;
  k[L].data[NOW].trim = TRIM;
  k[L].data[NOW].place = P;
  k[L].data[NOW].content = (TRIM -> 0 : CONTENT (h[HOST (L)].vm, P, h[HOST (L)].version[P]));
  k[L].valid[P] = (VALID_TOO_EARLY && !TRIM); /* in the map, before it is sent */
  k[L].clean[P] = false
}

inline op_answered (L) {
  if
  :: k[L].data[NOW].op == ANSWERED && !k[L].data[NOW].trim && !h[HOST (L)].ended ->
     k[L].valid[k[L].data[NOW].place] = true;
     if
     :: k[L].inc > 1 -> REACHED (REACHED_NEXT_ARENA, "a copy in the next arena")
     :: else
     fi
  :: k[L].data[NOW].op == ANSWERED && k[L].data[NOW].trim && !h[HOST (L)].ended -> k[L].clean[k[L].data[NOW].place] = true
  :: else
  fi;
  k[L].data[NOW].op = NO_OP;
  k[L].data[NOW].trim = false;
  k[L].data[NOW].place = 0;
  k[L].data[NOW].content = 0
}

/* A VM that was never there before on host b; what the one before had sent goes on its way. */
inline new_vm (B) {
  dead = dead | (1 << h[B].vm);
  h[B].vm = h[B].vm + NB;
  h[B].ended = false;
  for (j : 0 .. NP - 1) {
    h[B].version[j] = 0;
    h[B].stored[j] = false;
    h[B].settled[j] = false
  }
  for (x : 0 .. ND - 1) {
    give_up (LINK (B, x), false, false);
    k[LINK (B, x)].state = ATTACHING;
    k[LINK (B, x)].inc = 0;
    k[LINK (B, x)].lease = 0;
    k[LINK (B, x)].session = 1;
    k[LINK (B, x)].changes = CHANGES;
    for (j : 0 .. NP - 1) {
      k[LINK (B, x)].valid[j] = false
    }
  }
}

/* ---- properties of states, looked at after each step; in C, because that is built in a tenth of the time ---- */

c_code {
  extern void (*uerror) (char *);

  static int lease_of (int d, int id) {
    int i;
    for (i = 0; i < SLOTS; i++)
      if (id != 0 && now.n[d].lease[i].id == id && !now.n[d].lease[i].ending)
        return i;
    return -1;
  }

  /* The content of a place as a reader would get it; -1: there is no such lease, or no block. */
  static int content_of (int d, int id, int p) {
    int i, slot = lease_of (d, id);
    for (i = 0; slot >= 0 && i < BLOCKS; i++)
      if (now.n[d].word[i] == USED (slot, p))
        return now.n[d].content[i];
    return -1;
  }

  static void check_donor (int d) {
    int i, j, promised = 0, used[SLOTS] = { 0 };
    for (i = 0; i < BLOCKS; i++) {
      int word = now.n[d].word[i], slot = (word - 2) / NP;
      if (word == FREE && now.n[d].content[i] != ZEROES)
        uerror ("P2: a free block is not zeroed");
      if (word < 2)
        continue;
      used[slot]++;
      if (now.n[d].lease[slot].id == 0)
        uerror ("P1: a block of a lease that there is not");
      for (j = 0; j < i; j++)
        if (now.n[d].word[j] == word)
          uerror ("P1: two blocks for one place");
    }
    for (i = 0; i < SLOTS; i++) {
      promised += now.n[d].lease[i].level;
      if (now.n[d].lease[i].id != 0 && !now.n[d].lease[i].ending && used[i] > now.n[d].lease[i].level)
        uerror ("P1: more in use than the level");
    }
    if (promised > BLOCKS)
      uerror ("P1: blocks are promised twice");
  }

  static void check_link (int l) {
    int b = HOST (l), d = DONOR (l), p, slot = lease_of (d, now.k[l].lease);
    if (!HONEST (b))
      return;
    if (now.k[l].state == ATTACHED && now.k[l].asked == 0 && now.k[l].inc == now.n[d].inc && slot >= 0 &&
        now.n[d].lease[slot].epoch == now.k[l].epoch && now.n[d].lease[slot].level != now.k[l].level)
      uerror ("P6: the two sides do not agree about the level");
    for (p = 0; p < NP; p++) {
      int good = CONTENT (now.h[b].vm, p, now.h[b].version[p]);
      if (!now.k[l].valid[p])
        continue;
      /* It can be read now, so what is read must be good … */
      if (now.k[l].data[NOW].state == OPEN && content_of (d, now.k[l].data[NOW].lease, p) != good)
        uerror ("P4: what is not good is read as good");
      /* … and whether or not: nothing but an order or the loss of the arena takes it away. */
      if (now.k[l].inc == now.n[d].inc && now.k[l].lease != now.n[d].forgotten && content_of (d, now.k[l].lease, p) != good)
        uerror ("P3: a live copy is gone");
    }
  }

  /* Whatever is moved, there is a copy at each moment (only where nothing is lost and nobody gives orders). */
  static void check_copies (int b) {
#ifdef COPIES
    int p, d;
    for (p = 0; p < NP; p++) {
      int copies = now.h[b].stored[p];
      for (d = 0; d < ND; d++)
        copies += now.k[LINK (b, d)].valid[p];
      if (now.h[b].settled[p] && copies == 0)
        uerror ("P7: the last copy is given up");
    }
#endif
  }

  static void check_state (void) {
    int i;
    for (i = 0; i < ND; i++)
      check_donor (i);
    for (i = 0; i < NB * ND; i++)
      check_link (i);
    for (i = 0; i < NB; i++)
      check_copies (i);
  }
}

#define check() c_code { check_state (); }

/* ---- processes: what each does next is its own choice, and when it does it ---- */

#define IDLE(l) (k[l].asked == 0 && k[l].request[NOW].verb == 0 && k[l].answer.verdict == 0)
#define ALIVE(l) (!h[HOST (l)].ended)
#define COMES_DOWN(l) (k[l].revoke && k[l].level > k[l].revoke_level)

#ifdef COPIES
#if ND == 2
#define ELSEWHERE(l, p) (h[HOST (l)].stored[p] || k[LINK (HOST (l), 1 - DONOR (l))].valid[p])
#else
#define ELSEWHERE(l, p) (h[HOST (l)].stored[p])
#endif
#define MAY_WRITE(l, p) (!k[l].valid[p] && !k[l].revoke)
#define MAY_TRIM(l, p) (COMES_DOWN (l) && !k[l].clean[p] && (!k[l].valid[p] || ELSEWHERE (l, p) || TRIM_FIRST))
#define RELEASES(l) (COMES_DOWN (l) && k[l].clean[0] && k[l].data[NOW].op == NO_OP)
#define LOWER(l) (k[l].revoke_level)
#define KEEPS(l) (!RELEASES (l)) /* what there is to do comes first */
#else
#define MAY_WRITE(l, p) (!k[l].valid[p])
#define MAY_TRIM(l, p) true
#define RELEASES(l) (k[l].level > 0 && k[l].changes > 0)
#define LOWER(l) (k[l].level - 1)
#define KEEPS(l) true
#endif
#define GRANTS(l) (k[l].level < NP && ((k[l].changes > 0 && !k[l].revoke) || GRANT_IN_REVOKE))

/* A borrower's requests to one donor. */
proctype Asks (byte l) {
  do
  :: d_step {
       k[l].state == ATTACHING && IDLE (l) && (ALIVE (l) || k[l].lease != 0) -> ask (l, ATTACH, 0)
     }
  :: d_step {
       k[l].state == ATTACHED && IDLE (l) && ALIVE (l) && GRANTS (l) ->
       k[l].changes = (k[l].changes > 0 -> k[l].changes - 1 : 0);
       ask (l, GRANT, NP)
     }
  :: d_step {
       k[l].state == ATTACHED && IDLE (l) && ALIVE (l) && RELEASES (l) ->
       k[l].changes = (k[l].changes > 0 -> k[l].changes - 1 : 0);
       ask (l, RELEASE, LOWER (l))
     }
  :: d_step {
       k[l].state == ATTACHED && IDLE (l) && ALIVE (l) && KEEPS (l) -> ask (l, KEEP, 0)
     }
  :: d_step {
       k[l].state == ATTACHED && IDLE (l) && !ALIVE (l) -> ask (l, END, 0)
     }
  :: d_step {
       k[l].answer.verdict != 0 ->
       take_answer (l);
       check ()
     }
  :: d_step { /* no answer in time, so another connection: it was carried out, or comes late, or never */
       repeats > 0 && k[l].asked != 0 ->
       repeats--;
       if
       :: k[l].request[NOW].verb != 0 -> too_late (l)
       :: else
       fi;
       clear_answer (k[l].answer);
       clear_request (k[l].request[NOW]);
       x = (k[l].asked == ATTACH || k[l].asked == END -> k[l].asked : KEEP);
       ask (l, x, 0);
       check ()
     }
  od
}

#define CAN_SEND(l) \
  (k[l].state == ATTACHED && (k[l].data[NOW].state == OPENING || k[l].data[NOW].state == OPEN) && k[l].data[NOW].op == NO_OP && ALIVE (l))
#define SENDS(p) \
  ::d_step { \
      CAN_SEND (l) && h[HOST (l)].version[p] > 0 && k[l].level > 0 && MAY_WRITE (l, p) -> \
      send_op (l, p, false); \
      check () \
    } \
  ::d_step { \
      CAN_SEND (l) && k[l].level > 0 && MAY_TRIM (l, p) -> \
      send_op (l, p, true); \
      check () \
    }

/* A borrower's data connection to one donor; and when it gives up all that it has there. */
proctype Moves (byte l) {
  bool keep_late, keep_old;
  do
  :: d_step {
       k[l].state == ATTACHED && k[l].data[NOW].state == NO_CONNECTION && ALIVE (l) ->
       k[l].data[NOW].state = OPENING;
       k[l].data[NOW].lease = k[l].lease;
       k[l].data[NOW].epoch = k[l].epoch;
       k[l].data[NOW].inc = k[l].inc
     }
#ifdef LIAR
  :: d_step { /* another's */
       !HONEST (HOST (l)) && k[l].state == ATTACHED && k[l].data[NOW].state == NO_CONNECTION ->
       k[l].data[NOW].state = OPENING;
       k[l].data[NOW].lease = k[0].lease;
       k[l].data[NOW].epoch = k[0].epoch;
       k[l].data[NOW].inc = k[0].inc
     }
#endif
    SENDS (0)
#if NP > 1
    SENDS (1)
#endif
  :: d_step {
       k[l].data[NOW].op == ANSWERED || k[l].data[NOW].op == REFUSED ->
       op_answered (l);
#ifdef COPIES
       h[HOST (l)].settled[0] = (h[HOST (l)].settled[0] || k[l].valid[0]);
#endif
       check ()
     }
  :: atomic {
       /* One of its connections has broken: all are given up, and a new session begins … */
       BROKEN (k[l].data[NOW]) || (k[l].asked != 0 && k[l].request[NOW].verb == 0 && k[l].answer.verdict == 0) ||
         /* … or it loses its patience, or its worker dies. */
         (give_ups > 0 && GIVES_UP (l) && k[l].state != DONE && (k[l].request[NOW].verb != 0 || k[l].data[NOW].op == SENT || k[l].data[NOW].op == BEGUN)) ->
       if
       :: BROKEN (k[l].data[NOW]) || (k[l].asked != 0 && k[l].request[NOW].verb == 0 && k[l].answer.verdict == 0)
       :: else -> give_ups--
       fi;
       if
       :: true
       :: k[l].request[LATE].verb != 0 && k[l].request[NOW].verb != 0 -> keep_late = true
       fi;
       if
       :: true
       :: k[l].data[LATE].op != NO_OP && (k[l].data[NOW].op == SENT || k[l].data[NOW].op == BEGUN) -> keep_old = true
       fi;
       d_step {
         give_up (l, keep_late, keep_old);
         keep_late = false;
         keep_old = false;
         check ()
       }
     }
  od
}

#if ND == 2
#define STILL(b) (k[LINK (b, 0)].data[NOW].op == NO_OP && k[LINK (b, 1)].data[NOW].op == NO_OP)
#else
#define STILL(b) (k[LINK (b, 0)].data[NOW].op == NO_OP)
#endif
/* New contents: copies of the old ones are worth nothing. Not while one is under way. */
#define CHANGES_OF(p) \
  ::d_step { \
      !h[b].ended && h[b].version[p] < VERSIONS && STILL (b) -> \
      h[b].version[p]++; \
      h[b].stored[p] = false; \
      h[b].settled[p] = false; \
      for (x : 0 .. ND - 1) { \
        k[LINK (b, x)].valid[p] = false \
      } \
      check () \
    }

/* A borrower's pages, and what becomes of its VM. */
proctype Lives (byte b) {
  do
    CHANGES_OF (0)
#if NP > 1
    CHANGES_OF (1)
#endif
#ifdef COPIES
  :: d_step { /* there is always room: reserved when the lease was granted */
       h[b].version[0] > 0 && !h[b].stored[0] && !STORAGE_NOT_RESERVED ->
       h[b].stored[0] = true;
       h[b].settled[0] = true
     }
#endif
  :: d_step {
       ends > 0 && !h[b].ended ->
       ends--;
       h[b].ended = true;
       dead = dead | (1 << h[b].vm);
       for (x : 0 .. ND - 1) {
         for (j : 0 .. NP - 1) {
           k[LINK (b, x)].valid[j] = false
         }
       }
       check ()
     }
  :: d_step {
       reboots > 0 ->
       reboots--;
       h[b].boot++;
       new_vm (b);
       check ()
     }
  od
}

/* A donor's requests from one borrower; nobody waits for the answers to late ones. */
proctype Hears (byte l; byte which) {
  do
  :: d_step {
       k[l].request[which].verb != 0 ->
       donor_step (DONOR (l), HOST (l), k[l].request[which]);
       clear_request (k[l].request[which]);
       if
       :: which == NOW -> give_answer (DONOR (l), k[l].answer)
       :: else
       fi;
       check ()
     }
  od
}

/* A donor's data connection to one borrower. */
proctype Serves (byte l; byte which) {
  do
  :: d_step {
       k[l].data[which].state == OPENING ->
       open_data (DONOR (l), HOST (l), k[l].data[which], which);
       check ()
     }
  :: d_step {
       (k[l].data[which].state == OPEN || k[l].data[which].state == ORPHAN) && (k[l].data[which].op == SENT || k[l].data[which].op == BEGUN) ->
       if
       :: k[l].data[which].op == SENT -> begin_op (DONOR (l), HOST (l), k[l].data[which])
       :: else -> end_op (DONOR (l), HOST (l), k[l].data[which])
       fi;
       if
       :: which == LATE && k[l].data[which].op != BEGUN -> clear_data (k[l].data[which]) /* nobody waits for its answer */
       :: else
       fi;
       check ()
     }
  od
}

/* All connections to the donor's worker end with it. What it has not accepted yet finds the next one. */
inline worker_dies (D) {
  for (j : 0 .. NB - 1) {
    if
    :: WRITES_OUTLIVE_WORKER && k[LINK (j, D)].data[NOW].op == BEGUN -> k[LINK (j, D)].data[NOW].state = ORPHAN
    :: else -> close_data (k[LINK (j, D)].data[NOW], NOW)
    fi;
    close_data (k[LINK (j, D)].data[LATE], LATE);
    clear_request (k[LINK (j, D)].request[NOW]);
    clear_answer (k[LINK (j, D)].answer)
  }
}

/* Evidence needs silence; elsewhere it changes nothing. */
#define SILENCES (REBOOTS > 0 || TIMEOUT_FREES)

/* What happens to a lease without a request. */
proctype Changes (byte d; byte slot) {
  do
  :: d_step { /* an ended one's blocks, one by one; then the slot is free */
       n[d].lease[slot].ending ->
       block = BLOCKS;
       for (i : 0 .. BLOCKS - 1) {
         if
         :: n[d].word[i] >= USED (slot, 0) && n[d].word[i] <= USED (slot, NP - 1) -> block = i
         :: else
         fi
       }
       if
       :: block < BLOCKS && !SLOT_BEFORE_BLOCKS -> n[d].word[block] = DIRTY
       :: else -> clear_lease (n[d].lease[slot])
       fi;
       check ()
     }
  :: d_step { /* no request for a while, as the donor sees it */
       SILENCES && n[d].lease[slot].id != 0 && !n[d].lease[slot].ending && !n[d].lease[slot].silent ->
       n[d].lease[slot].silent = true;
       if
       :: TIMEOUT_FREES -> end_lease (d, slot)
       :: else
       fi;
       check ()
     }
  :: d_step {
       forgets > 0 && n[d].lease[slot].id != 0 && !n[d].lease[slot].ending ->
       forgets--;
       n[d].forgotten = n[d].lease[slot].id;
       end_lease (d, slot);
       check ()
     }
  :: d_step {
       revokes > 0 && !n[d].squeezed && n[d].lease[slot].level > 0 && !n[d].lease[slot].ending ->
       revokes--;
       n[d].squeezed = true;
       n[d].lease[slot].revoke = true;
       n[d].lease[slot].revoke_level = 0
     }
  od
}

/* What else happens in a donor, and to it. */
proctype Keeps (byte d) {
  do
  :: d_step {
       n[d].word[0] == DIRTY ->
       n[d].content[0] = (NO_ZEROING -> n[d].content[0] : ZEROES);
       n[d].word[0] = FREE;
       check ()
     }
#if BLOCKS > 1
  :: d_step {
       n[d].word[1] == DIRTY ->
       n[d].content[1] = (NO_ZEROING -> n[d].content[1] : ZEROES);
       n[d].word[1] = FREE;
       check ()
     }
#endif
  :: d_step {
       deaths > 0 ->
       deaths--;
       worker_dies (d);
       x = 0;
       for (i : 0 .. SLOTS - 1) {
         x = (n[d].lease[i].id > x -> n[d].lease[i].id : x);
         n[d].lease[i].silent = false;
         if
         :: REVOKE_FORGOTTEN ->
            n[d].lease[i].revoke = false;
            n[d].lease[i].revoke_level = 0
         :: else
         fi;
         if
         :: n[d].lease[i].ending -> REACHED (REACHED_DEATH_IN_END, "a worker dies while a lease ends")
         :: else
         fi;
         if
         :: END_FORGOTTEN -> n[d].lease[i].ending = false
         :: else
         fi
       }
       if
       :: EPOCH_AGAIN -> n[d].next = x + 1
       :: else
       fi;
       check ()
     }
  :: d_step {
       losses > 0 ->
       losses--;
       worker_dies (d);
       for (i : 0 .. SLOTS - 1) {
         clear_lease (n[d].lease[i])
       }
       for (i : 0 .. BLOCKS - 1) {
         n[d].word[i] = FREE;
         n[d].content[i] = ZEROES
       }
       n[d].inc++;
       n[d].next = 1;
       n[d].forgotten = 0;
       n[d].squeezed = false;
       check ()
     }
  od
}

init {
  d_step {
    c_code { planted = getenv ("PLANTED") ? atoi (getenv ("PLANTED")) : 0; };
    for (i : 0 .. NB - 1) {
      h[i].vm = i + 1
    }
    for (i : 0 .. NB * ND - 1) {
      k[i].session = 1;
      k[i].changes = CHANGES
    }
    for (i : 0 .. ND - 1) {
      n[i].inc = 1;
      n[i].next = 1
    }
    check ()
  }
  atomic {
    for (i : 0 .. NB * ND - 1) {
      run Asks (i);
      run Moves (i);
      run Hears (i, NOW);
      run Hears (i, LATE);
      run Serves (i, NOW);
      run Serves (i, LATE)
    }
    for (i : 0 .. NB - 1) {
      run Lives (i)
    }
    for (i : 0 .. ND - 1) {
      run Keeps (i);
      for (j : 0 .. SLOTS - 1) {
        run Changes (i, j)
      }
    }
  }
}

#ifdef LIVENESS
/* P5: a revoke ends, because the borrower has come down. */
#define CARRIED_OUT(d) (n[d].lease[0].level == 0 && n[d].lease[SLOTS - 1].level == 0)
ltl revoke_ends { [] (n[0].squeezed -> <> CARRIED_OUT (0)) }
#endif
