"""Scores of more than one scorer, in a table of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scores",
        sa.Column("scorer", sa.String(32), primary_key=True),
        sa.Column("scan_id", sa.Integer, primary_key=True),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("score_in_sample", sa.Float, nullable=False),
        sa.ForeignKeyConstraint(["scan_id"], ["scans.id"], name="fk_scores_scan_id_scans"),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO scores (scorer, scan_id, score, score_in_sample) "
        "SELECT 'centroid', id, score, score_in_sample FROM scans "
        "WHERE score IS NOT NULL AND score_in_sample IS NOT NULL ORDER BY id"
    )
    op.drop_column("scans", "score")
    op.drop_column("scans", "score_in_sample")
    op.add_column("jobs", sa.Column("scorers", sa.JSON, nullable=False, server_default='["centroid"]'))


def downgrade() -> None:
    op.drop_column("jobs", "scorers")
    op.add_column("scans", sa.Column("score", sa.Float))
    op.add_column("scans", sa.Column("score_in_sample", sa.Float))
    op.execute(
        "UPDATE scans SET score = scores.score, score_in_sample = scores.score_in_sample "
        "FROM scores WHERE scores.scan_id = scans.id AND scores.scorer = 'centroid'"
    )
    op.drop_table("scores")
