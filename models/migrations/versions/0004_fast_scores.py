"""A million vectors are read, and as many scores written, in seconds.

PostgreSQL would compress a vector, in vain, and put it into another table in two pieces, because its row is longer
than 2 kB. Up to 8 kB it now stays in its row; vectors that were stored before stay where they are.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_scans_job_id_state", "scans")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE scans SET (fillfactor = 70)")
        op.execute("ALTER TABLE embeddings ALTER COLUMN vector SET STORAGE EXTERNAL")
        op.execute("ALTER TABLE embeddings SET (toast_tuple_target = 8160)")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE embeddings RESET (toast_tuple_target)")
        op.execute("ALTER TABLE embeddings ALTER COLUMN vector SET STORAGE EXTENDED")
        op.execute("ALTER TABLE scans RESET (fillfactor)")
    op.create_index("ix_scans_job_id_state", "scans", ["job_id", "state"])
